"""A worker as the controller sees it: one process, its pipe, and the job it runs."""

import contextlib
import os
import pickle
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import IO, Any

import psutil

from visionsweep.errors import UserError
from visionsweep.sweep.engines.engine import Job
from visionsweep.sweep.engines.local.descendants import MARK, kill_descendants
from visionsweep.sweep.engines.local.resources import Slot
from visionsweep.sweep.engines.pickling import dumps

EXIT_SECONDS = 10.0  # for a worker that was told to exit, and for killed processes to go
_CLOSED_SECONDS = 1.0  # between the end of the pipe and that of the process
_TAIL = 2000  # characters of a worker's output in an error


class Worker:
    """A process that runs jobs, from its start until `reap`."""

    def __init__(self, slot: Slot, state: IO[bytes], log_path: Path | None) -> None:
        """``state``: what `start_state` returned. ``log_path``: None for the terminal."""
        self.slot = slot
        self.job: Job | None = None
        self.started: float | None = None  # time.time() of the job's start
        self.started_clock: float | None = None  # time.monotonic()
        self.created_clock = time.monotonic()
        self.jobs_done = 0
        self.failed_starts = 0  # of this slot, consecutive
        self.is_listening = False  # takes messages
        self.is_ready = False  # has imported the app
        self.is_closed = False  # the pipe
        self.is_reaped = False
        self._log_path = log_path
        self._log_offset = 0
        self._children: list[psutil.Process] = []  # when it was killed
        self._mark = secrets.token_hex(8)
        self.connection, other = Pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(other.close)
            log = None
            if log_path is not None:
                log = stack.enter_context(log_path.open("ab"))
                self._log_offset = log.tell()
            self._process = subprocess.Popen(
                _command(other.fileno(), state.fileno(), slot.threads),
                env={**os.environ, **slot.environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(other.fileno(), state.fileno()),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def assign(self, job: Job) -> None:
        """Run `job`, at once or when the process listens."""
        self.job = job
        self.started = self.started_clock = None
        if self.is_listening:
            self.send_job()

    def send_job(self) -> None:
        """Send the job; only once the process listens, or a large config would block."""
        if self.job is not None:
            self.send("job", dumps(self.job))

    def send(self, *message: Any) -> None:
        """Send a message; a dead process is found by `is_dead`."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def finish_job(self, *, is_last: bool) -> None:
        """Note that the job ended, and the process is free; or at its end, if it was the last."""
        self.job = None
        self.jobs_done = sys.maxsize if is_last else self.jobs_done + 1

    def messages(self) -> list[tuple[Any, ...]]:
        """Return all messages that arrived."""
        found = []
        try:
            while not self.is_closed and self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):  # it died, perhaps amid a message
            self.is_closed = True
        return found

    def is_dead(self) -> bool:
        """Return whether the process, or its pipe, has ended."""
        return self.is_closed or self._process.poll() is not None

    def await_exit_code(self) -> None:
        """Wait a moment: a process whose pipe just closed may not have exited yet."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSED_SECONDS)

    def used_memory(self) -> int:
        """Return the resident bytes of the process and its descendants."""
        used = 0
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self.pid)
            for process in (own, *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    used += process.memory_info().rss
        return used

    def kill(self) -> None:
        """Kill the process and its descendants."""
        if self.is_reaped:
            return
        self._process.send_signal(signal.SIGSTOP)  # it starts no more of them
        self._children = kill_descendants(self.pid, self._mark)
        self._process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Wait until what `kill` killed is gone; return the exit code."""
        code = self._process.wait()
        if not self.is_reaped:
            _wait_until_gone(self._children)
            self.connection.close()
            self.is_reaped = self.is_closed = True
        return code

    def output_tail(self) -> str:
        """Return the end of the process's output, and where it comes from."""
        if self._log_path is None:
            return "see its output above"
        with self._log_path.open("rb") as file:
            file.seek(self._log_offset)
            text = file.read().decode(errors="replace").strip()
        return f"the end of its output, from {self._log_path}:\n{text[-_TAIL:]}"


def _wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait for killed processes, at most until they are zombies: a container may reap none."""
    deadline = time.monotonic() + EXIT_SECONDS
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.005)


def start_state(state: tuple[Any, ...]) -> IO[bytes]:
    """Return an unnamed file with all that a worker needs to start.

    Raises `UserError` if the app cannot be sent to another process.
    """
    preparation = get_preparation_data("worker")
    del preparation["authkey"]
    try:
        blob = dumps(state)
    except Exception as error:
        raise UserError(
            "hydra/launcher=workers: the task function, a callback or the config cannot be sent to "
            f"a worker ({type(error).__name__}: {error}); keep locks, open files and generators "
            "out of them"
        ) from error
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the engine
    pickle.dump((preparation, blob), file)
    file.flush()
    return file


def _command(connection_fd: int, state_fd: int, threads: int) -> list[str]:
    root = str(Path(__file__).parents[4])  # the app's own sys.path is set only later
    # Defines no names: a name of the app's main module must not be found here.
    program = (
        f"__import__('sys').path.insert(0, {root!r}); __import__('importlib').import_module("
        "'visionsweep.sweep.engines.local.process')"
        f".main({connection_fd}, {state_fd}, {threads})"
    )
    # -W, -X, -O, ...
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-c", program]
