"""The names on the charts of a sweep's page, and the part of the objective's axis to look at."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from visionsweep.report.sweep.record import SweepRecord
from visionsweep.text import counted, short_value, shortened

# Okabe and Ito's palette, which the colour-blind can tell apart.
COLORS = {"complete": "#0072b2", "pruned": "#9a9a9a", "failed": "#d55e00", "running": "#009e73"}


class Label(str):
    """Text that Optuna's charts show without quotes: they show the repr of a choice."""

    __repr__ = str.__str__


def text(value: str) -> str:
    """Return text that plotly shows as it is: it reads some HTML, and `$...$` as mathematics."""
    return html.escape(value, quote=False).replace("$", "&#36;")


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return a short name for each, as plotly's text; different names stay different."""
    names = list(names)
    short = {name: text(shortened(name, 32)) for name in names}
    is_unique = len(set(short.values())) == len(names)
    return short if is_unique else {name: text(name) for name in names}


def labelled(record: SweepRecord, names: Mapping[str, str]) -> SweepRecord:
    """Return the record with its parameters and choices named as on the charts."""

    def shown(key: str, value: Any) -> Any:
        return _choice(value) if "choices" in record.space.get(key, {}) else value

    space = {
        names[key]: dict(described)
        if "choices" not in described
        else {"choices": list(dict.fromkeys(map(_choice, described["choices"])))}
        for key, described in record.space.items()
    }
    trials = [
        replace(trial, params={names[key]: shown(key, v) for key, v in trial.params.items()})
        for trial in record.trials
    ]
    return replace(record, space=space, trials=trials)


def _choice(value: Any) -> Label:
    return Label(text(short_value(value, limit=18)))


def objective_range(record: SweepRecord, reach: float) -> tuple[list[float] | None, str]:
    """Return the range of the objective worth looking at, and a note about trials outside.

    None: all of it. Bad trials would squeeze the good ones into a line.
    """
    costs = [record.cost(trial.value) for trial in record.ranked() if trial.value is not None]
    others = [
        record.cost(trial.value)
        for trial in record.trials
        if trial.value is not None and trial.state in ("pruned", "running")
    ]
    limit = focus(costs, others, reach)
    if limit is None:
        return None, ""
    best = min(costs)
    num_hidden = sum(cost > limit for cost in costs)
    side = "below" if record.directions[0] == "maximize" else "above"
    ends = sorted([record.cost(best - 0.05 * (limit - best)), record.cost(limit)])
    hidden = counted(num_hidden, "complete trial")
    note = f"Not shown: {hidden} {side} the axis; double-click to zoom out."
    return ends, note if num_hidden else ""


def focus(costs: Sequence[float], others: Sequence[float], reach: float) -> float | None:
    """Return the highest cost worth looking at, None: all of them.

    `costs` are those of complete trials, `others` those of pruned ones. If all of them take more
    than 2.5 times the room of the best nine tenths of the complete ones, the axis ends `reach`
    times that room above the best.
    """
    if len(costs) < 5:
        return None
    ordered = sorted(costs)
    room = ordered[math.ceil(0.9 * len(ordered)) - 1] - ordered[0]
    if not 0 < room < math.inf or max(*ordered, *others) - ordered[0] <= 2.5 * room:
        return None
    return ordered[0] + reach * room
