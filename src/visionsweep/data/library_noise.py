"""What Pillow and its C libraries say about odd files: kept off the terminal, and counted."""

import contextlib
import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL

_thread = threading.local()


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Collect what the libraries say in this thread, while `quiet_libraries` is on."""
    _thread.notes = notes = list[str]()
    try:
        yield notes
    finally:
        _thread.notes = None


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries' warnings off the terminal, in threads that decode.

    It covers all threads, since Python's warning filters do: enter it once, around the pool.
    """
    _silence_libtiff()
    logger = logging.getLogger("PIL")
    handler = _Noting()
    propagate = logger.propagate
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # else each is given once per process
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if not _note(str(message)):
                show(message, category, *place)

        warnings.showwarning = note  # type: ignore[assignment]
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


class _Noting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _note(record.getMessage())


def _note(text: str) -> bool:
    notes: list[str] | None = getattr(_thread, "notes", None)
    if notes is not None:
        notes.append(" ".join(text.split()))
    return notes is not None


@functools.cache
def _silence_libtiff() -> None:
    """Switch off the error messages that libtiff writes to the terminal by itself.

    Pillow switches off its warnings only. Each error is an exception of Pillow's too.
    """
    package = Path(PIL.__file__).parent
    bundled = [
        *package.parent.glob("pillow.libs/libtiff*"),  # of Linux wheels
        *package.glob(".dylibs/libtiff*"),  # of macOS wheels
    ]
    for library in [str(path) for path in bundled] or ["libtiff.so.6"]:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(library).TIFFSetErrorHandler(None)
