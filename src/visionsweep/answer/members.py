"""The possible members of an ensemble: finished trials with what they predict for the same images.

A member is a run, or the folds of a trial pooled to one set of out-of-fold predictions. Folds are
those of one trial (``7/fold_0``, ...) or single runs whose configs differ in ``split.fold`` alone.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.predictions import FinishedRun, finished_runs, mean_of, pooled
from visionsweep.config.paths import shown
from visionsweep.errors import DataError
from visionsweep.rundir.layout import BEST, runs_of_trial
from visionsweep.rundir.predictions import SplitPredictions
from visionsweep.text import counted

ENSEMBLE = "ensemble"  # the key in config.yaml that makes a run an ensemble

_NOT_THE_MODEL = ("name", "study", "tracking", "resume")  # keys in which folds of one run differ


@dataclass(frozen=True)
class Member:
    """A run, or the folds of a trial."""

    name: str  # its directory as one types it, or the place of a trial in its sweep
    runs: tuple[FinishedRun, ...]  # by fold
    class_names: list[str]
    val: SplitPredictions  # sorted by id
    test: SplitPredictions | None  # of folds: the mean of their probabilities, as logits

    @property
    def without_weights(self) -> list[Path]:
        """The runs whose `best.pt` is gone."""
        return [run.directory for run in self.runs if not (run.directory / BEST).is_file()]

    @property
    def is_folds(self) -> bool:
        """Whether its predictions are pooled from several folds."""
        return len(self.runs) > 1


@dataclass(frozen=True)
class Members:
    """Members that agree in their classes and validation images, and what was left out."""

    members: list[Member]
    left_out: list[str]  # one line each

    @property
    def class_names(self) -> list[str]:
        """The names (K,) of the classes."""
        return self.members[0].class_names

    @property
    def targets(self) -> NDArray[np.int64]:
        """The classes (N,) of the validation images."""
        return self.members[0].val.targets

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """What each image (N,) stays together with."""
        return self.members[0].val.groups

    def probabilities(self) -> NDArray[np.float32]:
        """Return the members' probabilities (M, N, K) for the validation images."""
        return np.stack([member.val.probabilities() for member in self.members])


def read_members(directories: Iterable[Path]) -> Members:
    """Return the members in directories of runs, sweeps and folders of runs.

    Raises `DataError` if there is none, or if their classes or validation images differ.
    """
    runs = [part for run in finished_runs(directories) for part in _folds(run)]
    ensembles = [run for run in runs if ENSEMBLE in run.config]
    left_out = [f"{shown(run.directory)} (an ensemble itself)" for run in ensembles]
    grouped = _by_folds(run for run in runs if ENSEMBLE not in run.config)
    most = max(map(len, grouped), default=0)
    members = []
    for group in grouped:
        if len(group) < most and group[0].fold is not None:
            left_out.append(f"{_name(group)} ({len(group)} of {counted(most, 'fold')} finished)")
        else:
            members.append(_member(group))
    if not members:
        raise DataError("ensemble: found nothing but ensembles; give the runs that they are of")
    for member in members[1:]:
        _check_same(members[0], member)
    return Members(members, left_out)


def _folds(run: FinishedRun) -> list[FinishedRun]:
    """Return the folds of a run that trained all of them (split.fold=all), or the run itself."""
    parts = runs_of_trial(run.directory)
    return [run] if parts == [run.directory] else finished_runs(parts)


def _by_folds(runs: Iterable[FinishedRun]) -> list[list[FinishedRun]]:
    """Return the runs, those that are folds of one another together and in order."""
    groups: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        if run.fold is None:
            key: tuple[str, ...] = (str(run.directory),)
        elif run.trial != run.directory:  # 7/fold_0, NAME/fold_0
            key = (str(run.trial), str(run.seed))
        else:
            config = {k: v for k, v in run.config.items() if k not in _NOT_THE_MODEL}
            config["split"] = {**config["split"], "fold": None}
            key = (str(run.directory.parent), json.dumps(config, sort_keys=True, default=str))
        groups.setdefault(key, []).append(run)
    return [sorted(group, key=lambda run: run.fold or 0) for group in groups.values()]


def _name(group: Sequence[FinishedRun]) -> str:
    first = group[0]
    place = first.trial if len(group) > 1 else first.directory
    if len(group) > 1 and place == first.directory:  # single runs in one folder
        return f"{shown(place)} and {counted(len(group) - 1, 'other fold')}"
    return shown(place)


def _member(group: Sequence[FinishedRun]) -> Member:
    predictions = [run.predictions() for run in group]
    names = predictions[0].class_names
    name = _name(group)
    if any(each.class_names != names for each in predictions):
        raise DataError(f"ensemble: the folds of {name} have different classes; train them again")
    try:
        val = pooled([each.val for each in predictions])
    except DataError as error:
        raise DataError(f"ensemble: {name}: {error}; give runs of one split") from error
    tests = [each.test for each in predictions if each.test is not None]
    test = mean_of(tests) if len(tests) == len(predictions) else None
    return Member(name, tuple(group), names, val, test)


def _check_same(one: Member, other: Member) -> None:
    if one.class_names != other.class_names:
        raise DataError(
            f"ensemble: {one.name} and {other.name} have different classes "
            f"({len(one.class_names)}: {', '.join(one.class_names[:5])}; "
            f"{len(other.class_names)}: {', '.join(other.class_names[:5])})"
        )
    same = np.array_equal(one.val.ids, other.val.ids)
    if not (same and np.array_equal(one.val.targets, other.val.targets)):
        common = len(np.intersect1d(one.val.ids, other.val.ids))
        raise DataError(
            f"ensemble: the validation images of {one.name} and {other.name} differ ("
            f"{len(one.val.ids):,} and {len(other.val.ids):,}, {common:,} in common), so they "
            "cannot be compared; give runs of the same data, seed and split.* (the folds of one "
            "trial are pooled)"
        )
