"""In which keys two configs differ."""

from collections.abc import Mapping
from typing import Any

NOT_SET = "(not set)"  # the value of a key that one of them lacks


def difference(previous: Any, current: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Return ``{dotted key: (previous value, current value)}`` of every leaf that differs.

    1, 1.0 and True differ; NaN equals NaN.
    """
    if isinstance(previous, Mapping) and isinstance(current, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name in dict.fromkeys([*previous, *current]):
            below = f"{key}.{name}" if key else str(name)
            values = (previous.get(name, NOT_SET), current.get(name, NOT_SET))
            found |= difference(*values, below)
        return found
    are_nan = previous != previous and current != current
    is_same = (previous == current or are_nan) and type(previous) is type(current)
    return {} if is_same else {key: (previous, current)}
