"""Waits for what ends by itself: a database that another program locks, a disk that is full."""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from visionsweep.errors import chain, is_out_of_space

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SAY_AFTER_SECONDS = 2.0  # other programs lock a database for moments
_STOP_AFTER_SECONDS = 5.0  # after the first request to stop; a second one ends the wait at once


class GaveUp(Exception):  # noqa: N818 - a request of the user, not an error
    """The user asked to stop while a call could not be made."""


class Patience:
    """Repeats a call until it succeeds or the user asks to stop."""

    def __init__(self, name: str, requests: Sequence[int] = ()) -> None:
        """``name``: what is waited for. ``requests`` grows with each request to stop."""
        self._name = name
        self._requests = requests

    def call(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Return what the function returns. Raises `GaveUp`."""
        began, said = time.monotonic(), False
        while True:
            try:
                result = function(*args, **keywords)
            except Exception as error:
                reason = waiting_reason(error)
                if reason is None:
                    raise
                waited = time.monotonic() - began
                if self._is_to_end(waited):
                    raise GaveUp(f"{self._name} {reason}") from error
                if not said and waited >= _SAY_AFTER_SECONDS:
                    log.warning("%s %s; waiting (Ctrl-C ends the sweep)", self._name, reason)
                    said = True
                time.sleep(_POLL_SECONDS)
            else:
                if said:
                    log.info("%s can be used again", self._name)
                return result

    def _is_to_end(self, waited: float) -> bool:
        return len(self._requests) > 1 or bool(self._requests and waited > _STOP_AFTER_SECONDS)


def waiting_reason(error: BaseException) -> str | None:
    """Return what an error says if it ends by itself; None for any other error."""
    codes = [getattr(link, "sqlite_errorcode", 0) & 0xFF for link in chain(error)]
    if sqlite3.SQLITE_BUSY in codes or sqlite3.SQLITE_LOCKED in codes:
        return "is locked by another program"
    if sqlite3.SQLITE_FULL in codes or is_out_of_space(error):
        return "cannot grow, since the disk is full"
    return None
