"""Directories of runs and sweeps that cannot be made, read, written or named, as one line."""

import contextlib
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
