"""Locks between processes. The kernel frees them when their process ends, however it ends.

`filelock` would do, but it cannot name the process that holds a lock. Where the file system has no
locks (some network file systems), a process says so and goes on.
"""

import contextlib
import fcntl
import functools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from visionsweep.errors import UserError
from visionsweep.rundir.layout import LOCK
from visionsweep.rundir.usable import refuse_link

_POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(directory: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run's or sweep's directory.

    Raises `UserError` that names the holder if it is not free within `wait_seconds`.
    """
    refuse_link(directory / LOCK)
    try:
        opened = _open(directory / LOCK)
    except OSError as error:
        raise UserError(
            f"cannot lock {directory / LOCK} ({error.strerror}); make the folder writable"
        ) from error
    with opened as file:
        deadline = time.monotonic() + wait_seconds
        while not _acquire(file, directory / LOCK, fcntl.LOCK_NB):
            if time.monotonic() >= deadline:
                holder = _describe_process(file.read().decode(errors="replace").strip())
                raise UserError(
                    f"{directory} is in use by {holder}; wait for it, or end it, then try again"
                )
            time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


@contextlib.contextmanager
def lock_file(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Hold the lock `path`, waiting as long as it takes; ``waiting`` is logged if it does."""
    with _open(path) as file:
        if not _acquire(file, path, fcntl.LOCK_NB):
            if waiting is not None:
                log.info("%s", waiting)
            _acquire(file, path)
        yield


@contextlib.contextmanager
def try_lock_file(path: Path) -> Iterator[bool]:
    """Hold the lock `path` if it is free; yields whether it is. Never waits."""
    with _open(path) as file:
        yield _acquire(file, path, fcntl.LOCK_NB)


def _open(path: Path) -> IO[bytes]:
    # Not through a link, which somebody else may have put into a shared folder.
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")


def _acquire(file: IO[bytes], path: Path, options: int = 0) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | options)
    except BlockingIOError:
        return False
    except OSError as error:
        _warn_once(path.parent, error.strerror)
    return True


@functools.cache
def _warn_once(folder: Path, reason: str) -> None:
    log.warning(
        "%s: the file system has no locks (%s); make sure that only one process writes there",
        *(folder, reason),
    )


def _describe_process(pid: str) -> str:
    import psutil

    try:
        return f"process {pid} ({' '.join(psutil.Process(int(pid)).cmdline())[:120]})"
    except (psutil.Error, ValueError, OverflowError):
        return "another process"
