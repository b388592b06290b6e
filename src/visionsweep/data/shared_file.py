"""A file in the cache folder: the first process that needs it builds it, all others open it."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from visionsweep.errors import DataError
from visionsweep.rundir.lock import lock_file

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class DamagedError(Exception):
    """The file is not what was written."""


def open_or_build(
    path: Path,
    read: Callable[[], _T | None],
    build: Callable[[], object],
    remove: Callable[[], None],
    *,
    contents: str,
    verb: str,
    noun: str,
    is_current: Callable[[_T], bool] = lambda _: True,
) -> _T:
    """Return what `read` finds at `path`; builds it first if there is nothing, or something else.

    ``read`` returns None without a file and raises `DamagedError`; what is damaged, or not
    ``is_current``, is removed. One process builds at a time. ``contents`` names what is in the
    file, ``verb`` and ``noun`` say how it is made ("decoding", "images"). Raises `DataError` if the
    folder cannot be used.
    """

    def opened() -> _T | None:
        try:
            return read()
        except DamagedError as error:
            logger.warning("%s is damaged (%s): %s the %s anew", path, error, verb, noun)
            with contextlib.suppress(OSError):
                remove()
            return None

    found = opened()
    if found is not None and not is_current(found):
        remove()
        found = None
    if found is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            waiting = f"another process is {verb} these {noun}: waiting for it"
            with lock_file(path.with_suffix(".lock"), waiting):
                # Another process may have built it while this one waited.
                found = opened()
                if found is None:
                    build()
                    logger.info("cached %s in %s", contents, path)
                    found = opened()
        except OSError as error:
            raise DataError(
                f"data.cache_dir: cannot write {path} ({error.strerror or error}). "
                f"Set data.cache_dir=FOLDER, or data.cache_dir=none to keep {noun} in memory"
            ) from error
        if found is None:
            raise DataError(
                f"data.cache_dir: {path} vanished while it was being opened; start again"
            )
    return found
