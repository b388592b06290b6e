"""A parameter's value: read from text with its distribution, and written for people. Knows no trials and no files.

A distribution is a mapping as in `sweep.yaml`: `choices`, or `type` (float, int), `low`, `high`, `log` and `step`;
`when` lists the conditions under which it is drawn.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from visionsweep.text import param_text, shortened

Distribution = Mapping[str, Any]

_MAX_LISTED_CHOICES = 10  # more different numbers than these are taken for draws from a range
_WORDS = {"null": None, "true": True, "false": False}


def parse_value(text: str, distribution: Distribution | None = None) -> Any:
    """Return a parameter in its own type from Hydra's spelling; text that does not fit stays text."""
    kind = None
    if distribution is not None:
        for choice in distribution.get("choices") or ():
            if param_text(choice) == text:
                return choice
        kind = distribution.get("type")
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        return text
    return _plain(text)


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def seen_distribution(values: Iterable[Any]) -> dict[str, Any]:
    """Return what values may have been drawn from, where nothing says: a range of many numbers, else choices."""
    distinct = list({(type(value), param_text(value)): value for value in values}.values())
    if not all(is_number(value) for value in distinct):
        return {"choices": distinct}
    distinct.sort()
    if len(distinct) <= _MAX_LISTED_CHOICES:
        return {"choices": distinct}
    low, high = distinct[0], distinct[-1]
    kind = "int" if all(isinstance(value, int) for value in distinct) else "float"
    is_log = low > 0 and high / low >= 100
    return {
        "type": kind,
        "low": low,
        "high": high,
        "log": is_log,
        "step": 1 if kind == "int" else None,
    }


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, which a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def short_text(value: Any, digits: int = 4, limit: int = 60) -> str:
    """Return a value for people: numbers with so many significant digits, long text cut in its middle."""
    if isinstance(value, float):
        text = f"{value:.{digits}g}"
        # 0.0001 is read faster than 1e-04, and 1e-5 than 1e-05.
        return text.replace("e-0", "e-").replace("e+0", "e+")
    return shortened(param_text(value).replace("\r", " ").replace("\n", " "), limit)


def objective_text(value: float) -> str:
    """Return an objective with four decimals; a count whole; four digits where these would say nothing."""
    if 10 <= abs(value) < 1e15 and (value == round(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else short_text(value)


def share_text(share: float) -> str:
    """Return a share in percent; a small one is not called nothing."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def duration_text(seconds: float) -> str:
    """Return a time span as `48 s`, `3 min 20 s`, `2 h 05 min` or `1 d 4 h`."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{total // 86400} d {total % 86400 // 3600} h"


def describe(distribution: Distribution) -> str:
    """Return a distribution in a few words: `log 0.0001 .. 0.1`, `focal | f1`, `1 .. 9, integers`."""
    choices = distribution.get("choices")
    if choices is not None:
        return " | ".join(short_text(choice) for choice in choices)
    text = f"{short_text(distribution.get('low'))} .. {short_text(distribution.get('high'))}"
    if distribution.get("log"):
        text = f"log {text}"
    step = distribution.get("step")
    if distribution.get("type") == "int" and step in (None, 1):
        return f"{text}, integers"
    return text if step is None else f"{text} in steps of {short_text(step)}"
