"""Locks between processes. The kernel frees them when their process ends, however it ends.

`filelock` would do, but it cannot name the process that holds a lock.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from visionsweep.errors import UserError
from visionsweep.rundir.layout import LOCK

_POLL_SECONDS = 0.1


@contextlib.contextmanager
def locked(directory: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run's or sweep's directory.

    Raises `UserError` that names the holder if it is not free within `wait_seconds`.
    """
    with (directory / LOCK).open("a+") as file:
        deadline = time.monotonic() + wait_seconds
        while not _acquire(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = _describe_process(file.read().strip())
                raise UserError(
                    f"{directory} is in use by {holder}; wait for it, or end it, then try again"
                )
            time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold the lock `path`, waiting as long as it takes."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def try_lock_file(path: Path) -> Iterator[bool]:
    """Hold the lock `path` if it is free; yields whether it is. Never waits."""
    with path.open("a") as file:
        yield _acquire(file)


def _acquire(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe_process(pid: str) -> str:
    import psutil

    try:
        return f"process {pid} ({' '.join(psutil.Process(int(pid)).cmdline())[:120]})"
    except (psutil.Error, ValueError):
        return "another process"
