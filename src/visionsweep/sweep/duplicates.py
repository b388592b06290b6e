"""Repeated configurations: a trial with the parameters of an earlier one takes its value."""

from collections.abc import Mapping
from typing import Any

_Key = tuple[tuple[str, Any], ...]


class Duplicates:
    """Knows the first trial of each configuration, and the trials that wait for its value."""

    def __init__(self) -> None:
        self._originals: dict[_Key, int] = {}
        self._waiting: dict[int, list[int]] = {}

    def original_of(self, number: int, params: Mapping[str, Any]) -> int:
        """Return the first trial with these parameters; `number` itself if there was none."""
        return self._originals.setdefault(_key(params), number)

    def replace_original(self, number: int, params: Mapping[str, Any]) -> None:
        """Make `number` the trial whose value counts; for one whose original failed."""
        self._originals[_key(params)] = number

    def wait(self, number: int, original: int) -> None:
        """Note that a trial waits for the value of its original."""
        self._waiting.setdefault(original, []).append(number)

    def pop_waiting(self, original: int) -> list[int]:
        """Return the trials that waited for `original`, which has ended."""
        return self._waiting.pop(original, [])


def _key(params: Mapping[str, Any]) -> _Key:
    return tuple(sorted(params.items()))
