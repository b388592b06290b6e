"""The return value of a task function as the objectives of a trial."""

import math
from typing import Any


def objectives(value: Any, count: int) -> tuple[list[float], str | None]:
    """Return the values of `count` objectives, and what is wrong with them, if anything.

    No values: the task function has a bug. Values and a problem: one of them is not finite.
    """
    if value is None:
        return [], "the task function returned None; it must return the objective, a number"
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        values = [float(item) for item in given]
    except (TypeError, ValueError):
        return [], f"expected a number from the task function, got {value!r}"
    if len(values) != count:
        expected = "1 objective value" if count == 1 else f"{count} objective values"
        return [], f"expected {expected} from the task function, got {len(values)}: {value!r}"
    if not all(map(math.isfinite, values)):
        return values, f"the objective is not finite: {value!r}"
    return values, None
