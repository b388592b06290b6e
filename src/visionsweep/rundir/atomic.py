"""Atomic writes: a file is there as a whole, or not at all. Imports no torch."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LOSSES = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes `path` on success: temporary name, fsync, rename.

    Readers see the old file or the new one, whenever the process or the machine dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            flush_to_disk(file.fileno())
        with contextlib.suppress(OSError):  # a file system without permissions
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp gives 0600, which a team cannot read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically. What UTF-8 cannot express is escaped."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file for one that the user named: written whole or not at all.

    A device, a pipe or a link stays what it is and is written to in the end: a rename would
    replace it. Files in the directory of a run are never written so, since a link there may be a
    stranger's.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with tempfile.TemporaryFile() as kept:
            yield kept
            kept.seek(0)
            # Opened anew, a file that stdout was redirected to would be emptied.
            with os.fdopen(os.dup(1), "wb") if is_stdout(path) else path.open("wb") as file:
                shutil.copyfileobj(kept, file)
    else:
        with atomic_write(path) as file:
            yield file


def is_stdout(path: Path) -> bool:
    """Return whether `path` names what stdout writes to, as /dev/stdout does."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def flush_to_disk(descriptor: int) -> None:
    """Make what was written survive the death of the machine, as far as the file system can.

    Shares (SMB) and folders of virtual machines refuse this for directories, some for files too.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _LOSSES:
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that one may write to, but not list
        return
    try:
        flush_to_disk(descriptor)
    finally:
        os.close(descriptor)
