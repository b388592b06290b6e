"""The local engine: worker processes, started once and supervised from here.

A death, a time-out or too much memory costs one job and one worker, which is replaced. `worker` is
one process seen from here, `process` is what runs in it, `resources` plans the slots.
"""

import contextlib
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from visionsweep.errors import UserError
from visionsweep.machine import count_cores
from visionsweep.sweep import _hydra
from visionsweep.sweep.engines.engine import (
    AttributesSet,
    Ended,
    Event,
    Job,
    Reported,
    Started,
    State,
)
from visionsweep.sweep.engines.local.resources import Limits, Slot, format_memory, parse_memory
from visionsweep.sweep.engines.local.worker import EXIT_SECONDS, Worker, start_state

_TICK_SECONDS = 0.25  # between two looks at the processes
_MEMORY_SECONDS = 1.0  # between two looks at their memory
_START_SECONDS = 600.0  # until a worker has imported the app, even from a slow file system
_MAX_FAILED_STARTS = 2


class WorkersEngine:
    """An engine with slots of this machine, one process each; as a context it closes at the end."""

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

        ``config``: what Hydra composed for the sweep. ``log_path``: the file for output between
        jobs; None for the terminal. ``keep_job_returns``: fill `Ended.job_return`. Raises
        `UserError` if the app cannot be sent to another process.
        """
        self._limits = limits or Limits()
        self._memory_limit = parse_memory(self._limits.memory_limit)
        self._log_path = log_path
        self._num_cores = count_cores()
        self._events: list[Event] = []
        self._is_stopping = False
        self._next_memory_check = time.monotonic() + _MEMORY_SECONDS
        # told to exit, with the time.monotonic() when they are killed
        self._retired: list[tuple[Worker, float]] = []
        singletons = _hydra.get_singletons()
        self._state = start_state(
            (hydra_context, config, task_function, singletons, keep_job_returns)
        )
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
        self._workers: list[Worker] = []
        try:
            for slot in slots:
                self._workers.append(Worker(slot, self._state, log_path))
        except BaseException:
            self.close()
            raise

    @property
    def num_slots(self) -> int:
        """Number of jobs that run at once."""
        return len(self._workers)

    @property
    def num_free(self) -> int:
        """Number of jobs that `submit` accepts now, also for workers that are starting."""
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
        """The process id of each slot's worker."""
        return [worker.pid for worker in self._workers]

    def submit(self, job: Job) -> None:
        """Give a job to a free slot, preferably a warm one; returns at once."""
        free = [worker for worker in self._workers if worker.job is None]
        if not free or self._is_stopping:
            raise RuntimeError(f"no free slot for {job.key}")
        min(free, key=lambda worker: not worker.is_ready).assign(job)

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Return the events since the last call; waits for a first one until the timeout.

        Also supervises the workers, so call it often. Raises `UserError` with the end of its output
        if a worker cannot start.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = 0.0 if self._events else deadline - time.monotonic()
            self._receive(min(max(left, 0.0), _TICK_SECONDS))
            self._supervise()
            if self._events or time.monotonic() >= deadline:
                events, self._events = self._events, []
                return events

    def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
        """Answer a report; does nothing if the job has ended."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key:
                worker.send("answer", key, prune, pause)

    def stop(self) -> None:
        """Ask every job to end at its next checkpoint; no more jobs are accepted.

        Jobs whose worker is still starting end here.
        """
        self._is_stopping = True
        for worker in self._workers:
            if worker.job is not None and not worker.is_ready:
                self._kill_job(worker, "stopped", "stopped before it started")
            else:
                worker.send("stop")

    def close(self) -> None:
        """Kill every worker and its descendants. No process is left when this returns."""
        self._is_stopping = True
        workers = [*self._workers, *(worker for worker, _ in self._retired)]
        self._retired = []
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.reap()
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

    def _receive(self, timeout_seconds: float) -> None:
        by_connection = {
            worker.connection: worker for worker in self._workers if not worker.is_closed
        }
        if not by_connection:
            time.sleep(timeout_seconds)
            return
        for connection in wait(list(by_connection), timeout_seconds):
            assert isinstance(connection, Connection)
            self._read(by_connection[connection])

    def _read(self, worker: Worker) -> None:
        """Read all messages of a worker."""
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
            elif kind == "attributes":
                self._events.append(AttributesSet(*content))
            else:
                ended, is_last = content
                self._events.append(_unpickled(worker, ended))
                worker.finish_job(is_last=is_last)

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
                self._retired.append((worker, now + EXIT_SECONDS))
                self._replace(worker)
        self._check_timeouts(now)
        if self._memory_limit is not None and now >= self._next_memory_check:
            self._next_memory_check = now + _MEMORY_SECONDS
            self._check_memory(self._memory_limit)
        for worker, deadline in list(self._retired):
            if worker.is_dead() or now >= deadline:
                self._retired.remove((worker, deadline))
                worker.kill()
                worker.reap()

    def _replace_dead(self, worker: Worker) -> None:
        if worker.is_reaped:  # while stopping, dead workers are not replaced
            return
        worker.await_exit_code()
        worker.kill()  # its descendants
        self._read(worker)  # it may have sent the end of its job
        code = worker.reap()
        job, worker.job = worker.job, None
        if worker.is_ready:
            if job is not None:
                self._events.append(_ended(worker, job, "lost", _exit_text(code)))
                job = None
        else:
            worker.failed_starts += 1
            if worker.failed_starts >= _MAX_FAILED_STARTS:
                raise UserError(_start_error(worker, code))
        replacement = self._replace(worker)
        if job is not None and replacement is not None:
            replacement.assign(job)

    def _replace(self, worker: Worker) -> Worker | None:
        """Start a new worker in a worker's slot; not while stopping."""
        if self._is_stopping:
            return None
        replacement = Worker(worker.slot, self._state, self._log_path)
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
                self._kill_job(worker, "timed_out", error)

    def _check_memory(self, limit: int) -> None:
        for worker in list(self._workers):
            if worker.job is not None and (used := worker.used_memory()) > limit:
                error = (
                    f"used {format_memory(used)}, more than "
                    f"hydra.launcher.memory_limit={self._limits.memory_limit}"
                )
                self._kill_job(worker, "out_of_memory", error)

    def _kill_job(self, worker: Worker, state: State, error: str) -> None:
        self._read(worker)
        if worker.job is None:  # it has just ended
            return
        job, worker.job = worker.job, None
        worker.kill()
        worker.reap()
        self._events.append(_ended(worker, job, state, error))
        self._replace(worker)


def _unpickled(worker: Worker, blob: bytes) -> Ended:
    try:
        ended: Ended = pickle.loads(blob)
        return ended
    except Exception as problem:
        assert worker.job is not None
        error = f"cannot read what the job returned: {type(problem).__name__}: {problem}"
        return _ended(worker, worker.job, "failed", error)


def _ended(worker: Worker, job: Job, state: State, error: str) -> Ended:
    now = time.time()
    return Ended(job.key, state, error=error, started=worker.started or now, ended=now)


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"its worker ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _start_error(worker: Worker, code: int) -> str:
    is_late = time.monotonic() >= worker.created_clock + _START_SECONDS
    reason = f"not ready after {_START_SECONDS:g} s" if is_late else _exit_text(code)
    return (
        f"worker {worker.slot.index} failed to start {worker.failed_starts} times ({reason}); "
        f"{worker.output_tail()}"
    )
