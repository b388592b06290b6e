"""Standard output and error that cannot end a run, be they closed or a pipe without a reader.

What people see is also in the logs, so what cannot be written is dropped.
"""

import io
import logging
import os
import sys
from typing import Any, TextIO


class _Droppable(io.FileIO):
    """A file descriptor that takes what it is given, whether or not anyone reads it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:  # `| head` has ended, the terminal was closed, the disk is full
            return len(data)


def keep_streams() -> None:
    """Make writing to `sys.stdout` and `sys.stderr` safe for the rest of this process.

    A descriptor that was closed leads to nowhere, so that no file of ours gets its number. Streams
    that somebody replaced, as pytest does, are left alone. May be called again.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            _replace(name, stream)


def _replace(name: str, stream: TextIO | None) -> None:
    descriptor = {"stdout": 1, "stderr": 2}[name]
    if stream is not None:
        if isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Droppable):
            return
        stream.flush()
    kept = io.TextIOWrapper(
        io.BufferedWriter(_Droppable(descriptor, "wb", closefd=False)),
        encoding=getattr(stream, "encoding", None),
        errors="backslashreplace",  # a name that the terminal cannot show
        line_buffering=name == "stderr" or os.isatty(descriptor),
    )
    setattr(sys, name, kept)
    setattr(sys, f"__{name}__", kept)
    for handler in logging.getLogger().handlers:  # of an app whose logging is configured already
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            handler.setStream(kept)
