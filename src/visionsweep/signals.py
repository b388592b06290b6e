"""Ctrl-C and SIGTERM as a request to stop, instead of the end of the process."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_requests(message: str | None = None, *, once: bool = False) -> Iterator[list[int]]:
    """Yield a list to which each Ctrl-C or SIGTERM adds its number.

    ``message`` is logged at the first one. ``once``: a second one has its usual effect, and so ends
    the process. Outside the main thread nothing is caught: whoever started the thread decides.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if message is not None and len(received) == 1:
            log.info(message)
        if once:
            restore()

    if_main_thread = contextlib.suppress(ValueError)
    with if_main_thread:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        with if_main_thread:
            restore()
