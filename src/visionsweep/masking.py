"""Passwords never reach a log or a traceback, whoever writes it."""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any

from visionsweep.text import mask_passwords


class _MaskedRecord(logging.LogRecord):
    """A log record without passwords, in its message and its traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[1] is not None:
            # Formatters show this text if it is there.
            lines = traceback.format_exception(self.exc_info[1])
            self.exc_text = mask_passwords("".join(lines).rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802 - the name that logging calls
        """Return the message without passwords."""
        return mask_passwords(super().getMessage())


def mask_logs() -> None:
    """Mask passwords in everything that this process logs, and in the traceback that ends it."""
    logging.setLogRecordFactory(_MaskedRecord)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show_traceback


def _show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    elif sys.stderr is not None:
        lines = traceback.format_exception(kind, error, trace)
        sys.stderr.write(mask_passwords("".join(lines)))
