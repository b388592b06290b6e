"""The local engine: worker processes started once, one pipe each, supervised from here.

A death, a time-out or too much memory touches one job and one worker, which is replaced. What a worker does is in
`worker` and `execution`; which slots there are is in `resources`.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from visionsweep.errors import ConfigError, UserError
from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started, State
from visionsweep.sweep.engines.job import Ending
from visionsweep.sweep.engines.local.pickling import dumps
from visionsweep.sweep.engines.local.resources import Slot, count_cores, format_memory, parse_memory

_TICK_SECONDS = 0.25  # how long a death may go unnoticed where the pipe does not tell
_MEMORY_SECONDS = 1.0  # between two looks at the memory
_START_SECONDS = (
    600.0  # until a worker has imported the app; a file system that hangs shows nowhere else
)
_RETIRE_SECONDS = 10.0  # for a worker that was told to exit
_MAX_FAILED_STARTS = 2
_TAIL = 2000  # characters of a worker's output in an error


@dataclass(frozen=True)
class Limits:
    """What a job may use; None: no limit. Raises `ConfigError` for what makes no sense."""

    max_trials_per_worker: int | None = None
    trial_timeout_seconds: float | None = None
    memory_limit: Any = None  # of a worker and its children: "4GB", "512MiB", bytes

    def __post_init__(self) -> None:
        trials, seconds = self.max_trials_per_worker, self.trial_timeout_seconds
        if trials is not None and (
            isinstance(trials, bool) or not isinstance(trials, int) or trials < 1
        ):
            raise ConfigError(
                f"hydra.launcher.max_trials_per_worker: expected a whole number from 1 on, or null, got {trials!r}"
            )
        if seconds is not None and (
            isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0
        ):
            raise ConfigError(
                f"hydra.launcher.trial_timeout_seconds: expected seconds, or null, got {seconds!r}"
            )
        parse_memory(self.memory_limit)


class WorkersEngine:
    """Slots of this machine, a process each; see `engine.Engine`. A context manager that closes at its end."""

    def __init__(
        self,
        slots: Sequence[Slot],
        *,
        hydra_context: HydraContext,
        config: DictConfig,
        task_function: TaskFunction,
        limits: Limits | None = None,
        log_path: Path | None = None,
        keep_job_returns: bool = False,
    ) -> None:
        """Start the workers, and return while they import the app.

        ``config``: what Hydra composed for the sweep. ``log_path``: where a worker's output goes between jobs; None:
        to the terminal. ``keep_job_returns``: `Ended.job_return` is wanted. Raises `UserError` where the app cannot be
        sent to another process.
        """
        self._limits = limits or Limits()
        self._memory_limit = parse_memory(self._limits.memory_limit)
        self._log_path = log_path
        self._num_cores = count_cores()
        self._events: list[Event] = []
        self._is_stopping = False
        self._next_memory_check = time.monotonic() + _MEMORY_SECONDS
        self._retired: list[
            tuple[_Worker, float]
        ] = []  # with the time.monotonic() when it is killed
        self._state = _start_state(
            (hydra_context, config, task_function, Singleton.get_state(), keep_job_returns)
        )
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
        self._workers: list[_Worker] = []
        try:
            for slot in slots:
                self._workers.append(_Worker(slot, self._state, log_path))
        except BaseException:
            self.close()
            raise

    # -- the interface

    @property
    def num_slots(self) -> int:
        """How many jobs run at once."""
        return len(self._workers)

    @property
    def num_free(self) -> int:
        """How many more jobs `submit` takes now; a worker that still starts counts."""
        return 0 if self._is_stopping else sum(worker.job is None for worker in self._workers)

    @property
    def num_cores(self) -> int:
        """CPU cores of this machine that the slots share."""
        return self._num_cores

    @property
    def threads(self) -> int:
        """CPU threads of one slot."""
        return self._workers[0].slot.threads

    @property
    def pids(self) -> list[int]:
        """The process of each slot's worker; another one after it was replaced."""
        return [worker.pid for worker in self._workers]

    def submit(self, job: Job) -> None:
        """Hand out a job to a free slot, one that is warm if there is one; returns at once."""
        free = [worker for worker in self._workers if worker.job is None]
        if not free or self._is_stopping:
            raise RuntimeError(f"no free slot for {job.key}")
        min(free, key=lambda worker: not worker.is_ready).take(job)

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Return what happened since the last call; waits at most so long for a first event.

        Also looks after the workers, so call it often. Raises `UserError` with the end of its output where a worker
        cannot start.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = 0.0 if self._events else deadline - time.monotonic()
            self._receive(min(max(left, 0.0), _TICK_SECONDS))
            self._supervise()
            if self._events or time.monotonic() >= deadline:
                events, self._events = self._events, []
                return events

    def answer(self, key: str, *, prune: bool) -> None:
        """Answer a report; nothing happens where the job ended meanwhile."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key:
                worker.send("answer", key, prune)

    def cancel(self, key: str, reason: str) -> None:
        """End a job at once, its process included; it ends as `stopped` with the reason as its error."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key:
                self._end_at_once(worker, "stopped", reason)

    def stop(self) -> None:
        """Ask every job to end at its next checkpoint (`Trial.should_stop`); no more jobs are taken.

        A job that waits for its worker to start ends here.
        """
        self._is_stopping = True
        for worker in self._workers:
            if worker.job is not None and not worker.is_ready:
                self._end_at_once(worker, "stopped", "stopped before it began")
            else:
                worker.send("stop")

    def close(self) -> None:
        """End every worker at once, with all that it started. No process is left when this returns."""
        self._is_stopping = True
        workers = [*self._workers, *(worker for worker, _ in self._retired)]
        self._retired = []
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.bury()
        self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- messages

    def _receive(self, timeout_seconds: float) -> None:
        by_connection = {
            worker.connection: worker for worker in self._workers if not worker.is_silent
        }
        if not by_connection:
            time.sleep(timeout_seconds)
            return
        for connection in wait(list(by_connection), timeout_seconds):
            assert isinstance(connection, Connection)
            self._read(by_connection[connection])

    def _read(self, worker: "_Worker") -> None:
        """Take all that a worker sent."""
        for kind, *content in worker.messages():
            if kind == "listening":
                worker.is_listening = True
                worker.send_job()
            elif kind == "ready":
                worker.is_ready = True
                worker.failed_starts = 0
            elif kind == "started":
                worker.started = content[1]
                worker.started_clock = time.monotonic()
                self._events.append(Started(content[0], worker.slot.index, content[1]))
            elif kind == "report":
                self._events.append(Reported(*content))
            else:
                self._events.append(_ended(content[0]))
                worker.finish()

    # -- supervision

    def _supervise(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if not worker.is_ready and now >= worker.created_clock + _START_SECONDS:
                worker.kill()
            if worker.is_dead():
                self._replace_dead(worker)
            elif worker.job is None and worker.jobs_done >= (
                self._limits.max_trials_per_worker or sys.maxsize
            ):
                worker.send("exit")
                self._retired.append((worker, now + _RETIRE_SECONDS))
                self._renew(worker)
        self._check_timeouts(now)
        if self._memory_limit is not None and now >= self._next_memory_check:
            self._next_memory_check = now + _MEMORY_SECONDS
            self._check_memory(self._memory_limit)
        for worker, deadline in list(self._retired):
            if worker.is_dead() or now >= deadline:
                self._retired.remove((worker, deadline))
                worker.kill()
                worker.bury()

    def _replace_dead(self, worker: "_Worker") -> None:
        if worker.is_buried:  # while stopping nobody takes its place
            return
        worker.settle()
        worker.kill()  # what it left behind
        self._read(worker)  # it may have told its end
        code = worker.bury()
        job, worker.job = worker.job, None
        if worker.is_ready:
            if job is not None:
                self._events.append(_end_of(worker, job, "lost", _describe_exit(code)))
                job = None
        else:
            worker.failed_starts += 1
            if worker.failed_starts >= _MAX_FAILED_STARTS:
                raise UserError(_start_error(worker, code))
        replacement = self._renew(worker)
        if job is not None and replacement is not None:
            replacement.take(job)

    def _renew(self, worker: "_Worker") -> "_Worker | None":
        """Put a new worker into a slot; none while stopping."""
        if self._is_stopping:
            return None
        replacement = _Worker(worker.slot, self._state, self._log_path)
        replacement.failed_starts = worker.failed_starts
        self._workers[self._workers.index(worker)] = replacement
        return replacement

    def _check_timeouts(self, now: float) -> None:
        seconds = self._limits.trial_timeout_seconds
        for worker in list(self._workers):
            if seconds is None or worker.job is None or worker.started_clock is None:
                continue
            if now - worker.started_clock > seconds:
                error = f"not finished after {seconds:g} s (hydra.launcher.trial_timeout_seconds)"
                self._end_at_once(worker, "timed_out", error)

    def _check_memory(self, limit: int) -> None:
        for worker in list(self._workers):
            if worker.job is not None and (used := worker.used_memory()) > limit:
                error = f"used {format_memory(used)}, more than hydra.launcher.memory_limit={self._limits.memory_limit}"
                self._end_at_once(worker, "out_of_memory", error)

    def _end_at_once(self, worker: "_Worker", state: State, error: str) -> None:
        self._read(worker)
        if worker.job is None:  # it ended just now
            return
        job, worker.job = worker.job, None
        worker.kill()
        worker.bury()
        self._events.append(_end_of(worker, job, state, error))
        self._renew(worker)


class _Worker:
    """One process, its pipe, and the job it has."""

    def __init__(self, slot: Slot, state: IO[bytes], log_path: Path | None) -> None:
        self.slot = slot
        self.job: Job | None = None
        self.started: float | None = None  # time.time() of the job's begin
        self.started_clock: float | None = None  # time.monotonic()
        self.created_clock = time.monotonic()
        self.jobs_done = 0
        self.failed_starts = 0  # of this slot, one after the other
        self.is_listening = self.is_ready = self.is_silent = self.is_buried = False
        self.log_path = log_path
        self.log_offset = 0
        self._children: list[psutil.Process] = []  # when it was killed
        self.connection, other = Pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(other.close)
            log = None
            if log_path is not None:
                log = stack.enter_context(log_path.open("ab"))
                self.log_offset = log.tell()
            self._process = subprocess.Popen(
                _command(other.fileno(), state.fileno(), slot.threads),
                env={**os.environ, **slot.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(other.fileno(), state.fileno()),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, job: Job) -> None:
        self.job = job
        self.started = self.started_clock = None
        if self.is_listening:
            self.send_job()

    def send_job(self) -> None:
        """Send the job; only to one that listens, or a large config would block the controller."""
        if self.job is not None:
            self.send("job", dumps(self.job))

    def send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):  # it died: `is_dead` tells
            self.connection.send(message)

    def finish(self) -> None:
        self.job = None
        self.jobs_done += 1

    def messages(self) -> "list[tuple[Any, ...]]":
        """Return all that arrived."""
        found = []
        try:
            while not self.is_silent and self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):  # it died, perhaps amid a message
            self.is_silent = True
        return found

    def is_dead(self) -> bool:
        return self.is_silent or self._process.poll() is not None

    def settle(self) -> None:
        """Give a process whose pipe has closed the moment that it needs to have an exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)

    def used_memory(self) -> int:
        """Return the resident bytes of the process and all that it started."""
        used = 0
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self.pid)
            for process in (own, *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    used += process.memory_info().rss
        return used

    def kill(self) -> None:
        """Kill the process and all that it started, also what it left behind in its session."""
        if self.is_buried:
            return
        with contextlib.suppress(psutil.Error):
            self._children = psutil.Process(self.pid).children(recursive=True)
        self._process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for child in self._children:
            with contextlib.suppress(psutil.Error):
                child.kill()

    def bury(self) -> int:
        """Wait for the end of what `kill` killed; return the exit code."""
        code = self._process.wait()
        if not self.is_buried:
            _wait_for_end(self._children)
            self.connection.close()
            self.is_buried = self.is_silent = True
        return code


def _wait_for_end(processes: list[psutil.Process]) -> None:
    """Wait until killed processes are gone; a zombie is, since a container may have nobody who reaps it."""
    deadline = time.monotonic() + _RETIRE_SECONDS
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.005)


def _start_state(state: tuple[Any, ...]) -> IO[bytes]:
    """Return a file without a name with all that a worker needs to start; each one reads it through its descriptor."""
    preparation = get_preparation_data("worker")
    del preparation["authkey"]
    try:
        blob = dumps(state)
    except Exception as error:
        raise UserError(
            "hydra/launcher=workers: the task function, a callback or the config cannot be sent to a worker "
            f"({type(error).__name__}: {error}); keep locks, open files and generators out of them"
        ) from error
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the engine
    pickle.dump((preparation, blob), file)
    file.flush()
    return file


def _command(connection_fd: int, state_fd: int, threads: int) -> list[str]:
    root = str(Path(__file__).parents[4])  # the app's own sys.path is set only later
    program = (
        f"import sys; sys.path.insert(0, {root!r}); from visionsweep.sweep.engines.local.process import main; "
        f"main({connection_fd}, {state_fd}, {threads})"
    )
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # -W, -X, -O, ...
    return [sys.executable, *flags, "-c", program]


def _ended(ending: Ending) -> Ended:
    state, error, value, job_return = ending.state, ending.error, None, None
    try:
        value, job_return = pickle.loads(ending.payload)
    except Exception as problem:
        state, error = (
            "failed",
            f"what the job returned cannot be read: {type(problem).__name__}: {problem}",
        )
    return Ended(
        ending.key, state, value, error, ending.traceback, ending.started, ending.ended, job_return
    )


def _end_of(worker: _Worker, job: Job, state: State, error: str) -> Ended:
    now = time.time()
    return Ended(job.key, state, error=error, started=worker.started or now, ended=now)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"its worker ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _start_error(worker: _Worker, code: int) -> str:
    is_late = time.monotonic() >= worker.created_clock + _START_SECONDS
    reason = f"not ready after {_START_SECONDS:g} s" if is_late else _describe_exit(code)
    message = (
        f"worker {worker.slot.index} ended {worker.failed_starts} times while it started ({reason})"
    )
    if worker.log_path is None:
        return f"{message}; see its output above"
    with worker.log_path.open("rb") as file:
        file.seek(worker.log_offset)
        text = file.read().decode(errors="replace").strip()
    return f"{message}; the end of its output, from {worker.log_path}:\n{text[-_TAIL:]}"
