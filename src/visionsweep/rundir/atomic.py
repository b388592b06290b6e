"""Files that are there whole or not at all, and the lock of a directory. Imports no torch."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from visionsweep.errors import UserError

_LOCK_POLL_SECONDS = 0.1


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that becomes `path` on success: temporary name, flush to disk, rename.

    A reader sees the old file or the new one, whenever the process or the machine dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp gives 0600, which a team cannot read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(directory: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run's directory; raise `UserError` naming the process that still holds it after the wait.

    The kernel frees the lock when its process ends, however it ends.
    """
    with (directory / ".lock").open("a+") as file:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = _describe_process(file.read().strip())
                raise UserError(
                    f"{directory} is in use by {holder}; wait for it, or end it, then try again"
                )
            time.sleep(_LOCK_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    import fcntl

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
