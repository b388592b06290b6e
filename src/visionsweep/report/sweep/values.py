"""Parameter values and the distributions that they are drawn from.

A distribution is a mapping as in the stored sweep: `choices`, or `type` (float, int), `low`,
`high`, `log` and `step`; `when` lists the conditions under which the parameter is active.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from visionsweep.text import param_text, short_value

Distribution = Mapping[str, Any]

_MAX_LISTED_CHOICES = 10  # more different numbers look like draws from a range
_WORDS = {"null": None, "true": True, "false": False}


def parse_value(text: str, distribution: Distribution | None = None) -> Any:
    """Return a parameter in its own type from Hydra's spelling, or the text if it does not fit."""
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
    return _parse_untyped(text)


def _parse_untyped(text: str) -> Any:
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
    """Return a distribution that the values fit: a range if they are many numbers, else choices."""
    distinct = list({(type(value), param_text(value)): value for value in values}.values())
    if not all(_is_number(value) for value in distinct):
        return {"choices": distinct}
    distinct.sort()
    if len(distinct) <= _MAX_LISTED_CHOICES:
        return {"choices": distinct}
    low, high = distinct[0], distinct[-1]
    kind = "int" if all(isinstance(value, int) for value in distinct) else "float"
    is_log = low > 0 and high / low >= 100
    step = 1 if kind == "int" else None
    return {"type": kind, "low": low, "high": high, "log": is_log, "step": step}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def share_text(share: float) -> str:
    """Return a share in percent; a small one is not shown as 0."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def describe(distribution: Distribution) -> str:
    """Return a distribution in words: `log 0.0001 .. 0.1`, `focal | f1`, `1 .. 9, integers`."""
    choices = distribution.get("choices")
    if choices is not None:
        return " | ".join(short_value(choice) for choice in choices)
    text = f"{short_value(distribution.get('low'))} .. {short_value(distribution.get('high'))}"
    if distribution.get("log"):
        text = f"log {text}"
    step = distribution.get("step")
    if distribution.get("type") == "int" and step in (None, 1):
        return f"{text}, integers"
    return text if step is None else f"{text} in steps of {short_value(step)}"
