"""A sweep pauses while the disk is full, which says nothing of a configuration."""

import shutil
import time
from pathlib import Path

_FIRST_SECONDS, _LONGEST_SECONDS = 10.0, 300.0
_ENOUGH_BYTES = 1_000_000  # more room than at the last failure


class Pause:
    """From the moment a trial ran out of space until the disk has more room.

    It may be another disk, or a quota, whose room cannot be seen: after a while a trial is tried
    all the same, ever less often.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._delay = _FIRST_SECONDS
        self._until: float | None = None  # time.monotonic(); None: no job waits
        self._free = 0
        self.is_full = False  # until a trial got further

    def begin(self) -> bool:
        """Begin a pause; return whether the last one helped, so that this is news."""
        is_news = not self.is_full
        self.is_full = True
        self._free = _free_bytes(self._folder)
        if self._until is None:  # else this trial was running all the while
            self._until = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, _LONGEST_SECONDS)
        return is_news

    def is_on(self) -> bool:
        """Return whether no job may start."""
        if self._until is not None and (
            time.monotonic() >= self._until
            or _free_bytes(self._folder) >= self._free + _ENOUGH_BYTES
        ):
            self._until = None
        return self._until is not None

    def end(self) -> bool:
        """Note that a trial got further; return whether that is news."""
        was_full, self.is_full, self._delay = self.is_full, False, _FIRST_SECONDS
        return was_full


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
