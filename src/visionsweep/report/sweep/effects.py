"""What each searched parameter did to the objective: the mean at each of its values.

Numbers with many values are cut into three ranges with equally many trials. An interval is
Student's t over trials: the other parameters vary in them, so it says how well the mean is known
given all that, and not how large the effect is under fixed settings.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.text import short_value

MAX_LEVELS = 12
_BINS = 3
_MIN_TRIALS = 5  # of a level, for an interval


@dataclass(frozen=True)
class Level:
    """The trials with one value of a parameter, or with values in one range."""

    name: str
    num_complete: int
    num_pruned: int
    mean: float
    half_width: float | None  # of the 95 % interval; None with too few trials


def effects(record: SweepRecord, keys: list[str]) -> dict[str, list[Level]]:
    """Return the levels of each parameter that varied, the best mean first."""
    trials = [trial for trial in record.trials if trial.duplicate_of is None]
    found = {key: _levels(record, key, trials) for key in keys}
    return {key: levels for key, levels in found.items() if len(levels) > 1}


def _levels(record: SweepRecord, key: str, trials: list[SweptTrial]) -> list[Level]:
    have = [trial for trial in trials if key in trial.params]
    name_of = _namer([trial.params[key] for trial in have])
    members: dict[str, list[SweptTrial]] = {}
    for trial in have:
        members.setdefault(name_of(trial.params[key]), []).append(trial)
    levels = [level for name, group in members.items() if (level := _level(name, group))]
    return sorted(levels, key=lambda level: (record.cost(level.mean), level.name))[:MAX_LEVELS]


def _level(name: str, trials: list[SweptTrial]) -> Level | None:
    from scipy import stats  # takes a second

    values = [t.value for t in trials if t.state == "complete" and t.value is not None]
    if not values:
        return None
    half = None
    with np.errstate(over="ignore"):  # an objective may be anything
        mean = float(np.mean(values))
        if len(values) >= _MIN_TRIALS:
            quantile = float(stats.t.isf(0.025, len(values) - 1))
            half = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    if half is not None and not math.isfinite(half):
        half = None
    pruned = sum(trial.state == "pruned" for trial in trials)
    return Level(name, len(values), pruned, mean, half) if math.isfinite(mean) else None


def _namer(values: list[Any]) -> Any:
    """Return a function: value -> the name of its level."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= 2 * _BINS:
        return lambda value: short_value(value, limit=40)
    edges = np.quantile(np.array(numbers, dtype=float), np.linspace(0, 1, _BINS + 1))

    def name(value: Any) -> str:
        place = min(int(np.searchsorted(edges[1:-1], float(value), side="right")), _BINS - 1)
        return f"{short_value(float(edges[place]))} to {short_value(float(edges[place + 1]))}"

    return name
