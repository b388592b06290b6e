"""The value of a trial that is several runs: the mean over seeds, the pooled metric over folds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionsweep.answer.objectives import has_predictions, pooled_objectives

# What a run returned: its objective, or with several objectives a list of them.
Value = float | list[float]


@dataclass(frozen=True)
class FoldsValue:
    """The objectives of all folds together, and what the user should know of them."""

    values: list[float]
    notes: list[str]


def value_of_folds(run_dirs: Sequence[Path], values: Sequence[Value]) -> FoldsValue:
    """Return the objectives of runs that are the folds of one split, from their predictions.

    ``values``: what the runs returned. Without predictions, as in another app, the means of these.
    Raises `DataError` if the predictions cannot be read.
    """
    if not has_predictions(run_dirs):
        line = "folds: the runs left no predictions, so a trial's value is the mean of its folds"
        return FoldsValue(means(values), [line])
    pooled = pooled_objectives(run_dirs)
    notes = [
        f"{one.metric}: predictions do not tell it, so a trial's value is the mean of its folds, "
        "weighted by their images"
        for one in pooled
        if not one.is_exact
    ]
    return FoldsValue([one.value for one in pooled], notes)


def means(values: Sequence[Value]) -> list[float]:
    """Return the mean of each objective over runs."""
    columns = zip(*(v if isinstance(v, list) else [v] for v in values), strict=True)
    return [mean(column) for column in columns]


def mean(values: Sequence[float]) -> float:
    """Return the mean, also of values whose sum is above all floats."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)
