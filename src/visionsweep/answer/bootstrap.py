"""The bootstrap over images: one set of weights per resample, the same for all runs.

Whole groups are drawn where the data has groups. An image that several runs validated has one
weight in all of them, so that their differences are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.groups import Replicate
from visionsweep.answer.metrics import Absent, Array, Counts, count, score

RESAMPLES = 1000
_CHUNK = 20_000_000  # weights in memory at once


@dataclass(frozen=True)
class Units:
    """What is resampled: the groups of the images, or the images themselves."""

    names: list[str]  # (U,)
    num_images: int  # different ones, over all runs
    of_run: list[NDArray[np.int64]]  # per run: (N,) the unit of each of its images

    @property
    def are_groups(self) -> bool:
        """Whether a unit may hold several images."""
        return len(self.names) < self.num_images


def units_of(replicates: Sequence[Replicate]) -> Units:
    """Return the units of all images that any of the runs validated."""
    numbers: dict[str, int] = {}
    images: set[str] = set()
    found: dict[tuple[bytes, bytes], NDArray[np.int64]] = {}
    of_run = []
    for replicate in replicates:
        groups = np.full(len(replicate.ids), "") if replicate.groups is None else replicate.groups
        contents = replicate.ids.tobytes(), groups.tobytes()
        if contents not in found:
            images.update(replicate.ids.tolist())
            found[contents] = number_units(replicate.ids, replicate.groups, numbers)
        of_run.append(found[contents])
    return Units(list(numbers), len(images), of_run)


def number_units(
    ids: NDArray[np.str_], groups: NDArray[np.str_] | None, numbers: dict[str, int]
) -> NDArray[np.int64]:
    """Return the number (N,) of each image's unit: its group, or itself without one.

    ``numbers``: those given so far, which new units are added to.
    """
    names = [""] * len(ids) if groups is None else groups.tolist()
    # the prefixes keep a group apart from an image of the same name
    keys = [f"g{g}" if g else f"i{i}" for i, g in zip(ids.tolist(), names, strict=True)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def exact_scores(replicates: Sequence[Replicate], metric: str, absent: Absent) -> Array:
    """Return the metric of each run on its validation images, (R,)."""
    counts = [Counts.of_labels(r.preds, r.targets, len(r.class_names)) for r in replicates]
    return np.array([float(score(metric, each, absent)) for each in counts])


def resampled_scores(
    replicates: Sequence[Replicate],
    units: Units,
    metric: str,
    absent: Absent,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Array:
    """Return the metric of each run under each resample of the images, (B, R).

    The Bayesian bootstrap (Rubin 1981, Annals of Statistics 9): the weights are exponential instead
    of counts, so that no class of a few images ever vanishes from a resample.
    """
    rng = np.random.default_rng(seed)
    most = max((len(unit) for unit in units.of_run), default=1)
    rows = max(1, _CHUNK // max(most, len(units.names)))
    parts = []
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), len(units.names))
        weights = rng.standard_exponential(size, dtype=np.float32)
        parts.append(_scores(replicates, units, weights, metric, absent))
    return np.concatenate(parts)


def _scores(
    replicates: Sequence[Replicate], units: Units, weights: Array, metric: str, absent: Absent
) -> Array:
    scores = np.empty((len(weights), len(replicates)))
    gathered: tuple[int, Array] | None = None  # runs in a row mostly have the same images
    for column, (replicate, unit) in enumerate(zip(replicates, units.of_run, strict=True)):
        if gathered is None or gathered[0] != id(unit):
            gathered = id(unit), weights[:, unit]
        num_classes = len(replicate.class_names)
        counts = count(replicate.preds, replicate.targets, num_classes, gathered[1])
        scores[:, column] = score(metric, counts, absent)
    return scores
