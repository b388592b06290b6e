"""The return value of a task function as the objectives of a trial."""

import math
from typing import Any

from visionsweep.text import printable, shortened

_MAX_TEXT = 200


def portable(value: Any) -> Any:
    """Return `value` with tensors and the like as plain numbers: the controller has no torch."""
    if isinstance(value, tuple):
        return tuple(map(portable, value))
    if isinstance(value, list):
        return list(map(portable, value))
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    try:
        return float(value)
    except Exception:  # of the object's own
        return value


def objectives(value: Any, count: int) -> tuple[list[float], str | None]:
    """Return the values of `count` objectives, and what is wrong with them, if anything.

    No values: the task function has a bug. Values and a problem: one of them is not finite.
    """
    if value is None:
        return [], "the task function returned None; it must return the objective, a number"
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        values = [_number(item) for item in given]
    except Exception:  # of the object's own
        return [], f"expected a number from the task function, got {_text(value)}"
    if len(values) != count:
        expected = "1 objective value" if count == 1 else f"{count} objective values"
        return [], f"expected {expected} from the task function, got {len(values)}: {_text(value)}"
    if not all(map(math.isfinite, values)):
        return values, f"the objective is not finite: {_text(value)}"
    return values, None


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer above all floats
        return math.inf


def _text(value: Any) -> str:
    try:
        return shortened(printable(repr(value)), _MAX_TEXT)
    except Exception:
        return f"a {type(value).__qualname__}"
