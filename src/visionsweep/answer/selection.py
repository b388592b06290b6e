"""The winner's curse: how good the best of many is on images that did not choose it.

The best of n trials was chosen on the validation images, and in each trial so was the epoch. Both
choices prefer what was lucky on these images. The whole selection is repeated on resamples of the
images: on those that a resample drew, the epoch of every run and then the trial are chosen, and the
chosen one is evaluated on the images that were not drawn (Tsamardinos et al. 2018, Machine Learning
107, "bootstrap bias corrected cross-validation"). Nothing is trained again.

Macro F1 on few images is biased itself, downwards. So the images left out, a third of all, do not
give the value: they give how much less the repeated choice is worth than the real winner on the
same images. And the bias on all images, as the bootstrap estimates it, is taken out (Efron 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.bootstrap import number_units
from visionsweep.answer.metrics import METRICS, Absent, Array, Counts, count, score
from visionsweep.answer.predictions import FinishedRun, by_trial, finished_runs
from visionsweep.errors import DataError

RESAMPLES = 200
_MAX_EPOCHS = 8  # of a run; epochs that are further behind are never chosen


@dataclass(frozen=True)
class CorrectedWinner:
    """The best trial, as it looked and as it is."""

    trial: Path
    metric: str  # such as val/f1_macro
    raw: float  # the value that won
    corrected: float  # what to expect on new images
    num_trials: int  # chosen from: those with the most runs
    num_others: int  # that have fewer seeds, since they were behind in the first ones
    num_images: int  # chosen on; groups, if the data has groups
    includes_epochs: bool  # whether choosing the epoch is corrected for, too
    standard_error: float  # of the value on so many images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the corrected value, over images."""
        half = 1.96 * self.standard_error
        return self.corrected - half, self.corrected + half


@dataclass(frozen=True)
class Candidate:
    """A run as the selection sees it."""

    targets: NDArray[np.int64]  # (N,)
    preds: NDArray[np.integer[Any]]  # (E, N) of the epochs that may be chosen
    units: NDArray[np.int64]  # (N,) what is resampled: images, or their groups
    chosen: int  # the epoch that was chosen, an index into `preds`


# A trial: its seeds, of which each has one run or several folds.
Trial = Sequence[Sequence[Candidate]]
# Per seed and fold: (B,) an epoch for each weighting, an index into the run's `preds`.
Epochs = list[list[NDArray[np.int64]]]


def corrected_winner(directory: Path) -> CorrectedWinner | None:
    """Return the winner of a sweep, or of several runs in a folder, with its corrected value.

    None if there are fewer than two trials, their objective does not follow from the predicted
    classes, or they were validated on different data. Raises `DataError` for damaged files.
    """
    try:
        runs = finished_runs([directory])
    except DataError:  # of another app, or none finished
        return None
    trials = by_trial(runs)
    names = {run.metric.removeprefix("val/") for run in runs}
    if len(trials) < 2 or len(names) > 1 or not names <= set(METRICS):
        return None
    most = max(len(members) for members in trials.values())
    complete = {place: members for place, members in trials.items() if len(members) == most}
    if len(complete) < 2:
        return None
    metric, num_classes, numbers = names.pop(), 0, dict[str, int]()
    absent: Absent = runs[0].config.get("metrics", {}).get("absent_classes", "zero")
    candidates = []
    includes_epochs = True
    for members in complete.values():
        seeds: dict[int, list[Candidate]] = {}
        for run in members:
            candidate, num_classes, has_epochs = _candidate(run, metric, absent, numbers)
            seeds.setdefault(run.seed, []).append(candidate)
            includes_epochs = includes_epochs and has_epochs
        candidates.append(list(seeds.values()))
    selection = Selection(candidates, metric, absent, num_classes, len(numbers))
    winner, raw, corrected, error = selection.correct()
    return CorrectedWinner(
        trial=list(complete)[winner],
        metric=f"val/{metric}",
        raw=raw,
        corrected=corrected,
        num_trials=len(complete),
        num_others=len(trials) - len(complete),
        num_images=len(numbers),
        includes_epochs=includes_epochs,
        standard_error=error,
    )


def _candidate(
    run: FinishedRun, metric: str, absent: Absent, numbers: dict[str, int]
) -> tuple[Candidate, int, bool]:
    """Return a run as a candidate, its number of classes, and whether it tells its epochs."""
    found = run.predictions()
    val = found.val
    units = number_units(val.ids, val.groups, numbers)
    final = val.logits.argmax(axis=1)
    num_classes = val.logits.shape[1]
    chooses = run.config.get("trainer", {}).get("checkpoint", "best") == "best"
    epochs, best = found.epoch_preds, run.result.get("best_epoch")
    if not chooses or epochs is None or not isinstance(best, int):
        has_epochs = not chooses or run.result.get("epochs") == 1
        return Candidate(val.targets, final[None], units, 0), num_classes, has_epochs
    counts = [Counts.of_labels(preds, val.targets, num_classes) for preds in epochs]
    scores = [score(metric, each, absent) for each in counts]
    order = np.argsort(-np.array(scores), kind="stable")[:_MAX_EPOCHS]
    kept = np.unique([*order.tolist(), best - 1])  # in their own order: the first of equals wins
    chosen = int(np.flatnonzero(kept == best - 1)[0])
    return Candidate(val.targets, epochs[kept], units, chosen), num_classes, True


class Selection:
    """The choice among trials, repeated on resamples of their images."""

    def __init__(
        self,
        trials: Sequence[Trial],
        metric: str,
        absent: Absent,
        num_classes: int,
        num_units: int,
    ) -> None:
        self._trials = trials
        self._metric = metric
        self._absent = absent
        self._num_classes = num_classes
        self._num_units = num_units

    def correct(self, resamples: int = RESAMPLES, seed: int = 0) -> tuple[int, float, float, float]:
        """Return the index of the winner, its value, the corrected one, and its standard error."""
        ones = np.ones((1, self._num_units))
        values = [self._value(trial, ones, _actual(trial, 1))[0] for trial in self._trials]
        winner = int(np.argmax(values))
        rng = np.random.default_rng(seed)
        share = np.full(self._num_units, 1 / self._num_units)
        drawn = rng.multinomial(self._num_units, share, size=resamples).astype(np.float32)
        chosen, chosen_values = zip(*(self._choose(t, drawn) for t in self._trials), strict=True)
        winners = np.array(chosen_values).argmax(axis=0)
        left_out = (drawn == 0).astype(np.float32)
        actual = _actual(self._trials[winner], resamples)
        real = self._value(self._trials[winner], left_out, actual)
        repeated = np.empty(resamples)
        for number in np.unique(winners):
            rows = winners == number
            epochs = [[of_run[rows] for of_run in of_seed] for of_seed in chosen[number]]
            repeated[rows] = self._value(self._trials[number], left_out[rows], epochs)
        resampled = self._value(self._trials[winner], drawn, actual)
        raw = float(values[winner])
        bias = float(resampled.mean()) - raw
        corrected = raw - float((real - repeated).mean()) - bias
        return winner, raw, corrected, float(resampled.std())

    def _choose(self, trial: Trial, weights: Array) -> tuple[Epochs, Array]:
        """Return the epochs that are best under each weighting, and the trial's value (B,)."""
        found = [[self._best_epochs(run, weights) for run in runs] for runs in trial]
        value = self._mean([[counts for _, counts in of_seed] for of_seed in found])
        return [[epochs for epochs, _ in of_seed] for of_seed in found], value

    def _best_epochs(self, run: Candidate, weights: Array) -> tuple[NDArray[np.int64], Counts]:
        gathered = weights[:, run.units]
        counts = [self._count(run, preds, gathered) for preds in run.preds]
        scores = [score(self._metric, each, self._absent) for each in counts]
        best = np.array(scores).argmax(axis=0)
        rows = np.arange(len(weights))
        parts = zip(*((each.correct, each.actual, each.predicted) for each in counts), strict=True)
        return best, Counts(*(np.array(part)[best, rows].astype(np.float64) for part in parts))

    def _value(self, trial: Trial, weights: Array, epochs: Epochs) -> Array:
        """Return the trial's value (B,) with these epochs."""
        return self._mean(
            [
                [self._counts_at(run, weights, row) for run, row in zip(runs, rows, strict=True)]
                for runs, rows in zip(trial, epochs, strict=True)
            ]
        )

    def _mean(self, counts: Sequence[Sequence[Counts]]) -> Array:
        """Return the mean over seeds of the metric of all folds together, (B,)."""
        values = [score(self._metric, sum(rest, first), self._absent) for first, *rest in counts]
        return np.asarray(np.mean(values, axis=0))

    def _counts_at(self, run: Candidate, weights: Array, epochs: NDArray[np.int64]) -> Counts:
        """Return the counts of each weighting at its own epoch."""
        parts = np.empty((3, len(weights), self._num_classes))
        gathered = weights[:, run.units]
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            found = self._count(run, run.preds[epoch], gathered[rows])
            parts[:, rows] = found.correct, found.actual, found.predicted
        return Counts(*parts)

    def _count(self, run: Candidate, preds: NDArray[np.integer[Any]], weights: Array) -> Counts:
        return count(preds, run.targets, self._num_classes, weights)


def _actual(trial: Trial, num_rows: int) -> Epochs:
    """Return the epochs that were really chosen, the same in every row."""
    return [[np.full(num_rows, run.chosen) for run in runs] for runs in trial]
