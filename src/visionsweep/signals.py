"""Ctrl-C and SIGTERM as a wish to stop: the run ends after the current update and can be resumed."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Give a list that Ctrl-C or SIGTERM puts its number into; a second one ends the process at once."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        log.info("stopping after the current batch (once more: at once)")
        for known, old in previous.items():
            signal.signal(known, old)

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            previous[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread: whoever started it decides how it ends
        previous.clear()
    try:
        yield received
    finally:
        for known, old in previous.items():
            signal.signal(known, old)
