"""What runs in a worker process: it takes one job after another and never outlives its controller.

`worker.Worker` starts it. Imported before the app, so it imports little; `job` runs a job. The
process leads its own session: Ctrl-C in the terminal does not reach it or its children.
"""

import contextlib
import faulthandler
import json
import math
import operator
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import process, spawn
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from visionsweep.machine import share_cores
from visionsweep.masking import mask_logs
from visionsweep.sweep.engines.local.descendants import MARK, kill_descendants

if TYPE_CHECKING:
    from visionsweep.sweep.engines.engine import Job

_PARENT_CHECK_SECONDS = 1.0
_mark = os.environ.get(MARK)
_MAX_KEY = 500  # characters; the databases' columns have 512
_MAX_STEP = 2**31 - 1  # the databases' integer

# From the controller: ("job", pickled Job) | ("answer", key, prune, pause) | ("stop",) | ("exit",).
# From a worker: ("listening",) | ("ready",) | ("started", key, time)
# | ("report", key, step, value, others) | ("attributes", key, attributes)
# | ("ended", pickled Ended, whether it was this process's last).


def main(connection_fd: int, state_fd: int, threads: int) -> None:
    """Run jobs until the controller says `exit`. `state_fd`: the file of `worker.start_state`."""
    # The controller handles Ctrl-C. Child processes inherit this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask_logs()
    faulthandler.enable()  # on descriptor 2: a crash in C leaves its stack in the job's log
    for descriptor in (connection_fd, state_fd):
        os.set_inheritable(descriptor, False)
    channel = Channel(Connection(connection_fd))
    share_cores(threads)
    channel.send("listening")
    size = os.fstat(state_fd).st_size
    preparation, state = pickle.loads(os.pread(state_fd, size, 0))  # workers share the offset
    os.close(state_fd)
    _import_app(preparation)
    _make_streams_safe()

    from visionsweep.sweep.engines.job import JobRunner
    from visionsweep.sweep.engines.process_state import is_spent

    runner = JobRunner(state)
    channel.send("ready")
    try:
        while (blob := channel.jobs.get()) is not None:
            job: Job = pickle.loads(blob)
            trial = WorkerTrial(channel, job, threads)
            ended = runner.run(job, trial, on_start=channel.started)
            channel.send("ended", ended, is_spent())
    except BaseException:
        traceback.print_exc()
        end_process_tree()  # a thread of the app would keep this process alive


def _import_app(preparation: dict[str, Any]) -> None:
    """Import the app's main module, as a process that multiprocessing spawned does."""
    own = process.current_process()
    # Python's own: multiprocessing refuses to start processes now. An app without
    # `if __name__ == "__main__"` would start a sweep here.
    own._inheriting = True  # type: ignore[attr-defined]
    try:
        spawn.prepare(preparation)
    except SystemExit:
        sys.stderr.write(
            "the app ran while a worker imported it; put the call of its main function under "
            "`if __name__ == '__main__':`\n"
        )
        raise
    finally:
        del own._inheriting  # type: ignore[attr-defined]


def _make_streams_safe() -> None:
    """Have every line written at once, and no text refused: a print must not fail a trial."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # the app may have replaced it
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="backslashreplace", line_buffering=True
            )


class Channel:
    """The worker's end of the pipe. A thread reads it, and ends the process when it closes."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.jobs: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # None: end
        self.answers: queue.SimpleQueue[tuple[str, bool, bool]] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._connection = connection
        self._sending = threading.Lock()
        self._pid, self._parent = os.getpid(), os.getppid()
        threading.Thread(target=self._receive, name="controller", daemon=True).start()

    def send(self, *message: Any) -> None:
        """Send to the controller; ends this process if the controller is gone.

        A child that a task forked and that returned from the task ends here too.
        """
        if os.getpid() != self._pid:
            os._exit(1)
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            end_process_tree()

    def started(self, key: str, time: float) -> None:
        """Tell that a job starts."""
        self.send("started", key, time)

    def _receive(self) -> None:
        try:
            while True:
                while not self._connection.poll(_PARENT_CHECK_SECONDS):
                    # A child of the dead controller may hold the pipe open.
                    if os.getppid() != self._parent:
                        return
                kind, *content = self._connection.recv()
                if kind == "job":
                    self.jobs.put(content[0])
                elif kind == "answer":
                    self.answers.put((content[0], content[1], content[2]))
                elif kind == "stop":
                    self.stop.set()
                else:
                    self.jobs.put(None)
        except (EOFError, OSError):
            return
        finally:
            end_process_tree()


def end_process_tree() -> NoReturn:
    """Kill this process and its descendants."""
    try:
        kill_descendants(os.getpid(), _mark)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(1)


class WorkerTrial:
    """The trial of the running job; see `trial.Trial`."""

    def __init__(self, channel: Channel, job: "Job", threads: int) -> None:
        self.number: int | None = job.number
        self.attempt = job.attempt
        self.params = job.params
        self.threads: int | None = threads
        self._key = job.key
        self._channel = channel
        self._reporting = threading.Lock()
        self._is_paused = False
        self._pid = os.getpid()

    def report(self, value: float | Sequence[float], step: int) -> bool:
        """Report to the controller; return its answer, whether to raise `TrialPruned`.

        Raises TypeError if a value or step is not a number, ValueError if there is no value, or
        the first one is not finite.
        """
        first, *rest = value if isinstance(value, (list, tuple)) and value else [value]
        number, others = _finite(first, step), tuple(_number(one, step) for one in rest)
        step = _step(step)
        self._require_own_process("report")
        with self._reporting:
            self._channel.send("report", self._key, step, number, others)
            key, prune, self._is_paused = self._channel.answers.get()
            while key != self._key:  # for a job that ended without waiting
                key, prune, self._is_paused = self._channel.answers.get()
        return prune

    def set(self, **attributes: Any) -> None:
        """Attach values to the trial.

        Raises TypeError for a value that JSON cannot express.
        """
        plain = {key: _json(key, value) for key, value in attributes.items()}
        self._require_own_process("set")
        self._channel.send("attributes", self._key, plain)

    def should_stop(self) -> bool:
        """Return whether the sweep is stopping, or the trial is paused."""
        return self._is_paused or self._channel.stop.is_set()

    def _require_own_process(self, method: str) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"trial.{method}: only the process of the task function can call it, "
                "not its children"
            )


def _json(key: str, value: Any) -> Any:
    """Return an attribute's value as JSON gives it back; NumPy's and torch's scalars as numbers."""
    if len(key) > _MAX_KEY:
        raise ValueError(
            f"trial.set: expected a key of at most {_MAX_KEY} characters, got {len(key)}"
        )
    try:
        return json.loads(json.dumps(value, default=lambda scalar: scalar.item()))
    except Exception:
        raise TypeError(
            f"trial.set: {key}: expected a number, a string, or a list or mapping of them, "
            f"got a {type(value).__name__}"
        ) from None


def _step(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(
            f"trial.report: expected an integer as step (the epoch), got {step!r}"
        ) from None
    if not 0 <= number <= _MAX_STEP:
        raise ValueError(f"trial.report: expected a step from 0 to {_MAX_STEP}, got {number}")
    return number


def _number(value: Any, step: Any) -> float:
    try:
        number = None if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise TypeError(f"trial.report: expected a number at step {step}, got {value!r}") from None
    return number


def _finite(value: Any, step: Any) -> float:
    number = _number(value, step)
    if not math.isfinite(number):
        raise ValueError(
            f"trial.report: the objective is {number} at step {step}; expected a finite number"
        )
    return number
