"""Is A better than B: means, paired differences, intervals, and what can be said of them.

Owns the statistics of a comparison. `answer/sentences.py` puts them into words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from visionsweep.answer.bootstrap import RESAMPLES, exact_scores, resampled_scores, units_of
from visionsweep.answer.groups import Arm, Arms, PairingKey, make_arms
from visionsweep.answer.interval import Estimate, estimate_difference, estimate_mean
from visionsweep.answer.metrics import METRICS, Array
from visionsweep.answer.predictions import FinishedRun
from visionsweep.errors import ConfigError
from visionsweep.text import did_you_mean

LEVEL = 0.95
_ALL_PAIRS = 5  # with more arms, only the best is compared with each other one

Verdict = Literal["different", "equivalent", "unclear"]


@dataclass(frozen=True)
class ArmResult:
    """One side: the mean over its runs."""

    name: str
    mean: Estimate
    spread: float | None  # standard deviation between seeds (n - 1); None with a single one
    num_runs: int
    num_images: int


@dataclass(frozen=True)
class Difference:
    """The difference of two sides, positive where `first` is better than `second`."""

    first: str
    second: str
    estimate: Estimate
    level: float  # of its interval, such that all intervals of the comparison hold together
    num_pairs: int | None  # None: the runs are not paired
    num_images: int
    smallest: float

    @property
    def interval(self) -> tuple[float, float]:
        """The interval, corrected for the number of comparisons."""
        return self.estimate.interval(self.level)

    @property
    def verdict(self) -> Verdict:
        """What can be said, given the smallest difference that matters.

        The interval decides, and so does that of the images alone: two or three seeds may agree by
        chance, and then the interval is narrower than these images allow.
        """
        low, high = self.interval
        alone = self.estimate.half_width_of_images(self.level)
        distance = abs(self.estimate.value)
        if self.smallest > 0 and max(abs(low), abs(high), distance + alone) < self.smallest:
            return "equivalent"
        return "different" if (low > 0 or high < 0) and distance > alone else "unclear"

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval holds for other seeds, too; with a single one it cannot."""
        return self.estimate.num_seeds > 1


@dataclass(frozen=True)
class Comparison:
    """The answer to one question."""

    metric: str  # such as val/f1_macro
    factors: tuple[str, ...]
    others: tuple[str, ...]
    arms: list[ArmResult]  # best first
    differences: list[Difference]
    num_comparisons: int  # that the intervals are corrected for
    notes: list[str]
    are_groups: bool  # whole groups of images were resampled


@dataclass(frozen=True)
class _Scores:
    """The metric of the runs of one arm, by pairing key."""

    arm: Arm
    exact: dict[PairingKey, float]
    resampled: dict[PairingKey, Array]  # (B,) each
    images: dict[PairingKey, frozenset[str]]  # equal sets are one object


def compare(
    runs: Sequence[FinishedRun],
    by: Sequence[str] = (),
    *,
    metric: str | None = None,
    smallest: float = 0.0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare runs by the settings `by`, or by everything in which they differ but the seed.

    ``metric``: such as `val/f1_macro`; None: the objective of the runs. Metrics that do not follow
    from the predicted classes, such as the loss, are compared over seeds alone. ``smallest``: the
    smallest difference that matters, in the metric's unit. Raises `ConfigError` and `DataError`.
    """
    name = _metric(runs, metric)
    arms = make_arms(runs, by)
    sign = -1.0 if name == "loss" else 1.0
    scores, are_groups = _score(arms, name, runs, resamples)
    results = sorted((_arm_result(s) for s in scores), key=lambda a: (-sign * a.mean.value, a.name))
    by_name = {s.arm.name: s for s in scores}
    names = [result.name for result in results]
    pairs = list(combinations(names, 2))
    num_comparisons = len(pairs)
    if len(names) > _ALL_PAIRS:
        pairs = [(names[0], other) for other in names[1:]]
    level = 1 - (1 - LEVEL) / max(num_comparisons, 1)
    notes, unpaired = list(arms.notes), list[str]()
    differences = [
        _difference(by_name[a], by_name[b], sign, level, smallest, notes, unpaired)
        for a, b in pairs
    ]
    if name == "loss" and any(key.partition(".")[0] == "loss" for key in arms.factors):
        notes.append("values of different losses are different quantities: compare another metric")
    if unpaired:
        more = "" if len(unpaired) == 1 else f" (like those of {len(unpaired) - 1} other pairs)"
        notes.append(
            f"the runs of {unpaired[0]} are not paired{more}: they differ in other settings than "
            "the one in question, so the means over all of them are compared"
        )
    unknown = any(replicate.groups is None for arm in arms.arms for replicate in arm.replicates)
    if unknown:
        notes.append(
            "predictions of an older version do not tell groups: each image counts by itself"
        )
    return Comparison(
        f"val/{name}",
        arms.factors,
        arms.others,
        results,
        differences,
        num_comparisons,
        list(dict.fromkeys(notes)),
        are_groups,
    )


def _metric(runs: Sequence[FinishedRun], given: str | None) -> str:
    metrics = sorted({run.metric for run in runs}) if given is None else [given]
    if len(metrics) > 1:
        raise ConfigError(
            f"metric: the runs have several objectives ({', '.join(metrics)}); choose one with "
            "metric=..."
        )
    name = metrics[0].removeprefix("val/")
    known = {key.removeprefix("val/") for run in runs for key in run.result.get("metrics", {})}
    if name not in METRICS and name not in known:
        options = sorted({*METRICS, *(key for key in known if "/" not in key)})
        raise ConfigError(
            f"metric: no such metric: {metrics[0]}{did_you_mean(name, options)} "
            f"(one of {', '.join(options)})"
        )
    return name


def _score(
    arms: Arms, metric: str, runs: Sequence[FinishedRun], resamples: int
) -> tuple[list[_Scores], bool]:
    replicates = [replicate for arm in arms.arms for replicate in arm.replicates]
    units = units_of(replicates)
    if metric in METRICS:
        absent: Any = runs[0].config.get("metrics", {}).get("absent_classes", "zero")
        exact = exact_scores(replicates, metric, absent)
        resampled = resampled_scores(replicates, units, metric, absent, resamples=resamples)
    else:
        exact = np.array([replicate.metric(metric) for replicate in replicates])
        resampled = np.empty((0, len(replicates)))
    columns = {id(replicate): column for column, replicate in enumerate(replicates)}
    images: dict[bytes, frozenset[str]] = {}
    for replicate in replicates:
        images.setdefault(replicate.ids.tobytes(), frozenset(replicate.ids.tolist()))
    found = []
    for arm in arms.arms:
        place = {key: [columns[id(r)] for r in cell] for key, cell in arm.cells.items()}
        found.append(
            _Scores(
                arm,
                {key: float(exact[where].mean()) for key, where in place.items()},
                {key: resampled[:, where].mean(axis=1) for key, where in place.items()},
                {key: images[cell[0].ids.tobytes()] for key, cell in arm.cells.items()},
            )
        )
    return found, units.are_groups


def _arm_result(scores: _Scores) -> ArmResult:
    keys = list(scores.exact)
    values = np.array([scores.exact[key] for key in keys])
    resampled = np.stack([scores.resampled[key] for key in keys], axis=1)
    return ArmResult(
        scores.arm.name,
        estimate_mean(values, resampled),
        float(values.std(ddof=1)) if len(values) > 1 else None,
        sum(len(cell) for cell in scores.arm.cells.values()),
        _num_images(scores.images.values()),
    )


def _difference(
    first: _Scores,
    second: _Scores,
    sign: float,
    level: float,
    smallest: float,
    notes: list[str],
    unpaired: list[str],
) -> Difference:
    """Compare two sides; ``unpaired`` gets their names if other settings keep runs from pairing."""
    common = [key for key in first.exact if key in second.exact]
    same = [key for key in common if first.images[key] == second.images[key]]
    names = f"{first.arm.name} and {second.arm.name}"
    if len(same) < len(common):
        shared = frozenset[str]().union(*first.images.values())
        other = frozenset[str]().union(*second.images.values())
        notes.append(
            f"the validation images of {names} differ ({len(shared & other):,} of "
            f"{len(shared | other):,} are in both), so their runs are not paired"
        )
    fewest = min(len(first.exact), len(second.exact))
    is_paired = 2 * len(same) >= fewest and len(same) > 0
    if is_paired:
        left_out = len(first.exact) + len(second.exact) - 2 * len(same)
        if left_out:
            notes.append(f"{left_out} runs of {names} have no partner and are left out of the pair")
        values = np.array([sign * (first.exact[k] - second.exact[k]) for k in same])
        resampled = np.stack(
            [sign * (first.resampled[k] - second.resampled[k]) for k in same], axis=1
        )
        estimate = estimate_mean(values, resampled)
    else:
        sides: list[Array] = []
        for scores in (first, second):
            sides.append(sign * np.array(list(scores.exact.values())))
            sides.append(sign * np.stack(list(scores.resampled.values()), axis=1))
        estimate = estimate_difference(*sides)
        if len(same) == len(common):
            unpaired.append(names)
    keys = same if is_paired else list(first.exact)
    return Difference(
        first.arm.name,
        second.arm.name,
        estimate,
        level,
        len(same) if is_paired else None,
        _num_images(first.images[key] for key in keys),
        smallest,
    )


def _num_images(sets: Iterable[frozenset[str]]) -> int:
    different = {id(images): images for images in sets}
    return len(frozenset[str]().union(*different.values()))
