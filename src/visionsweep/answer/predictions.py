"""Finished runs and what they predicted, read from their directories alone.

Owns which runs count, and how predictions of folds become one set. Knows nothing of metrics.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.config.paths import shown
from visionsweep.errors import DataError
from visionsweep.rundir.description import read_config
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import CONFIG, PREDICTIONS, run_directories
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    log_probabilities,
    read_predictions,
)
from visionsweep.rundir.result import read_result

_PART_OF_TRIAL = re.compile(r"(seed|fold)_\d+")


@dataclass(frozen=True)
class FinishedRun:
    """A run that finished: its description. Its predictions are read on request."""

    directory: Path
    config: Mapping[str, Any]  # config.yaml
    result: Mapping[str, Any]  # result.json

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config.get("seed", 0))

    @property
    def fold(self) -> int | None:
        """The fold that it validated on; None if it did not train one of several folds."""
        fold = self.config.get("split", {}).get("fold")
        return int(fold) if str(fold).isdigit() else None

    @property
    def metric(self) -> str:
        """The metric of its objective, such as `val/f1_macro`. Raises `DataError` without one."""
        objective = self.config.get("objective")
        if not isinstance(objective, Mapping) or "metric" not in objective:
            raise DataError(
                f"{shown(self.directory / CONFIG)} has no objective.metric; was it written by "
                "visionsweep?"
            )
        return str(objective["metric"])

    @cached_property
    def choices(self) -> dict[str, str]:
        """The choice in each config group, such as ``{"loss": "focal"}``."""
        start = next((r for r in read_journal(self.directory) if r["type"] == "start"), {})
        params = start.get("params", {})
        groups = [name for name, node in self.config.items() if _is_component(node)]
        return {name: str(params.get(name) or _class_name(self.config[name])) for name in groups}

    @property
    def trial(self) -> Path:
        """The directory of the trial that it belongs to; of a single run its own."""
        place = self.directory
        while _PART_OF_TRIAL.fullmatch(place.name):
            place = place.parent
        return place

    def predictions(self) -> Predictions:
        """Read `predictions.npz`. Raises `DataError` if it is damaged."""
        return read_predictions(self.directory)


def finished_runs(directories: Iterable[Path]) -> list[FinishedRun]:
    """Return the finished runs in directories of runs, of sweeps and of several runs, in order.

    A run that did not finish (pruned, failed, still running) has no predictions and is left out; a
    run that is named twice counts once. Raises `DataError` if a directory does not exist, or holds
    no finished run.
    """
    runs: dict[Path, FinishedRun] = {}
    for directory in directories:
        found = run_directories(directory)
        finished = [run for path in found if (run := _finished(path)) is not None]
        if not finished:
            raise DataError(_nothing_finished(directory, len(found)))
        for run in finished:
            runs.setdefault(run.directory.resolve(), run)
    return list(runs.values())


def by_trial(runs: Iterable[FinishedRun]) -> dict[Path, list[FinishedRun]]:
    """Return the runs of each trial: its seeds and folds. A single run is a trial of its own."""
    trials: dict[Path, list[FinishedRun]] = {}
    for run in runs:
        trials.setdefault(run.trial, []).append(run)
    return trials


def pooled(parts: Sequence[SplitPredictions]) -> SplitPredictions:
    """Return the predictions of several folds as those of one set of images, sorted by id.

    Sorted, so that the pooled sets of two trials agree row by row however their folds are ordered.
    Raises `DataError` if an image is in two parts, or the numbers of classes differ.
    """
    if len({part.logits.shape[1] for part in parts}) > 1:
        raise DataError("the folds to pool have different numbers of classes")
    ids = np.concatenate([part.ids for part in parts])
    unique, first = np.unique(ids, return_index=True)
    if len(unique) < len(ids):
        repeated = ids[np.setdiff1d(np.arange(len(ids)), first)[0]]
        raise DataError(f"the folds to pool overlap: {repeated} was validated on more than once")
    groups = [part.groups for part in parts]
    known = [group for group in groups if group is not None]
    return SplitPredictions(
        ids=ids[first],
        targets=np.concatenate([part.targets for part in parts])[first],
        logits=np.concatenate([part.logits for part in parts])[first],
        groups=np.concatenate(known)[first] if len(known) == len(groups) else None,
    )


def mean_of(
    parts: Sequence[SplitPredictions], weights: Sequence[float] | None = None
) -> SplitPredictions | None:
    """Return the mean probabilities of several predictions for the same images, as logits.

    None if the images differ. Sorted by id. ``weights``: they sum to 1; None: all alike.
    """
    ordered = [pooled([part]) for part in parts]
    first = ordered[0]
    if not all(np.array_equal(first.ids, other.ids) for other in ordered):
        return None
    stacked = np.stack([part.probabilities() for part in ordered])
    shares = np.full(len(parts), 1 / len(parts)) if weights is None else np.array(weights)
    return as_logits(first, np.tensordot(shares, stacked, axes=1))


def as_logits(images: SplitPredictions, probabilities: NDArray[np.floating]) -> SplitPredictions:
    """Return predictions whose softmax is `probabilities` (N, K)."""
    logits = log_probabilities(probabilities).astype(np.float32)
    return SplitPredictions(images.ids, images.targets, logits, images.groups)


def _is_component(node: object) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _class_name(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _finished(run_dir: Path) -> FinishedRun | None:
    result = read_result(run_dir)
    if result is None or result["state"] != "finished" or not (run_dir / PREDICTIONS).is_file():
        return None
    return FinishedRun(run_dir, read_config(run_dir), result)


def _nothing_finished(directory: Path, num_runs: int) -> str:
    place = shown(directory)
    if not directory.is_dir():
        return f"{place} does not exist; expected the directory of a run or a sweep"
    if num_runs == 0:
        return (
            f"{place} holds no run; expected the directory of a run (outputs/NAME), of a sweep "
            "(multirun/STUDY), or a folder of runs"
        )
    return f"{place}: none of its {num_runs} runs has finished with predictions"
