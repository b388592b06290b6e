"""Directories and files of runs and sweeps that cannot be used, as one line."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from visionsweep.errors import UserError
from visionsweep.text import shortened


@contextlib.contextmanager
def usable(directory: Path, key: str) -> Iterator[None]:
    """Turn an `OSError` about `directory`, which `key` sets, into a `UserError`."""
    try:
        yield
    except OSError as error:
        path = shortened(str(error.filename or directory), 200)
        raise UserError(
            f"{path} cannot be created or used ({error.strerror or type(error).__name__}); "
            f"start the command where you may write, or set {key}=DIR"
        ) from error


def refuse_link(path: Path) -> None:
    """Raise `UserError` if a file that grows is a link.

    What is appended would go elsewhere, and the directory may come from a stranger. Files that are
    written as a whole replace a link.
    """
    if path.is_symlink():
        raise UserError(f"{path}: expected a file, got a link to {os.readlink(path)}; remove it")
