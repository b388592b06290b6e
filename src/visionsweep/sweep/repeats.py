"""Repeats where they pay: a trial gets another seed only while it may still be the best.

A race over seeds: when every trial has its first seed, the best ENTRANTS of them go on, one seed at
a time, until the leader has all its seeds and no other trial may be better, at a level of 95 %
(F-Race: Birattari et al. 2002; with t-tests in place of ranks: López-Ibáñez et al. 2016, irace).

Trials share their seeds, and a seed may do the same to all of them, for example with its own
split. So the values are taken as trial + seed + noise and fitted by least squares. The standard
error of a difference between two trials, and with it the decision, comes from the residuals alone:
their pooled variance over all trials with several seeds. Nothing is out for good: if the leader
turns out to be worse than it seemed, others are within the noise again.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionsweep.sweep.settings import SweepSettings
from visionsweep.text import counted

ENTRANTS = 8  # trials that may get more than one seed: the best by their first one
_STARTERS = 4  # get a second one in any case, since the noise is not known before
_LEVEL = 0.95  # one-sided

# The values of each trial's seeds, in their order; every trial has the first seed.
SeedValues = Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Noise:
    """How much values differ between seeds: standard deviations of a single run."""

    own: float  # of a trial beside the others: what a seed does to all trials alike is taken out
    total: float  # of a trial by itself
    num_trials: int  # with several seeds, from which it was estimated

    def __str__(self) -> str:
        total = f"; {self.total:.2g} with what a seed does to all trials alike"
        return (
            f"noise between seeds: {self.own:.2g} (of {counted(self.num_trials, 'trial')} with "
            f"several{total if self.total > self.own else ''})"
        )


@dataclass(frozen=True)
class Fit:
    """The trials of a race as the seeds show them; values as with the first seed."""

    numbers: list[int]
    estimates: NDArray[np.float64]  # (n,)
    covariance: NDArray[np.float64]  # (n, n), of the estimates, in units of the noise's variance
    variance: float  # of the noise; NaN if it is not known
    degrees: int  # of freedom of the variance


def seeds_rule(settings: SweepSettings) -> str | None:
    """Return which trials get how many seeds, in a line; None if there is nothing to say."""
    if settings.seeds == 1 or settings.confirm is not None:
        return None
    if settings.races:
        return (
            f"seeds: one per trial, then up to {settings.seeds} for those that may be the best "
            "(hydra.sweeper.seeds_for=contenders)"
        )
    reason = "" if settings.needs_all_seeds is None else f": {settings.needs_all_seeds}"
    return f"seeds: {settings.seeds} for every trial (hydra.sweeper.seeds_for=all{reason})"


def race_lines(values: SeedValues, settings: SweepSettings) -> list[str]:
    """Return what the seeds of a sweep told and cost, for its summary."""
    found = noise_of(values)
    lines = [] if found is None else [str(found)]
    if settings.races and values:
        several = sum(len(seeds) > 1 for seeds in values.values())
        more = sum(len(seeds) - 1 for seeds in values.values())
        most = len(values) * (settings.seeds - 1)
        lines.append(
            f"more than one seed: {several} of {counted(len(values), 'trial')}, "
            f"{more} of {most} further seeds"
        )
    return lines


def entrants(values: SeedValues, direction: str) -> list[int]:
    """Return the trials that may get more than one seed, the best first."""
    sign = -1 if direction == "maximize" else 1
    return sorted(values, key=lambda number: (sign * values[number][0], number))[:ENTRANTS]


def next_trial(
    values: SeedValues, max_seeds: int, direction: str, running: Collection[int] = ()
) -> int | None:
    """Return the trial that gets the next seed; None if none has to.

    Of the contenders the one with the fewest seeds, and of these the best. Those that are `running`
    have a next seed already.
    """
    racing = {number: values[number] for number in entrants(values, direction)}
    contenders = _contenders(racing, direction)
    waiting = [n for n in contenders if len(values[n]) < max_seeds and n not in running]
    return min(waiting, key=lambda number: len(values[number]), default=None)


def _contenders(values: SeedValues, direction: str) -> list[int]:
    """Return the trials that may be the best, in the order of their estimates."""
    if not values:
        return []
    starters = list(values)[:_STARTERS]
    if any(len(values[number]) < 2 for number in starters):
        return starters
    found = fit(values)
    costs = -found.estimates if direction == "maximize" else found.estimates
    order = np.lexsort((np.array(found.numbers), costs)).tolist()
    leader = order[0]
    bound = _bounds(found, leader)
    return [found.numbers[i] for i in order if i == leader or costs[i] - costs[leader] <= bound[i]]


def _bounds(found: Fit, leader: int) -> NDArray[np.float64]:
    """Return how far each trial may be behind the leader by chance."""
    from scipy.special import stdtrit  # takes a while

    if found.degrees == 0:
        return np.full(len(found.numbers), math.inf)
    own = found.covariance.diagonal()
    squares = own + own[leader] - 2 * found.covariance[leader]
    with np.errstate(invalid="ignore"):  # an objective may be anything
        errors = np.sqrt(np.maximum(squares, 0) * found.variance)
    return np.asarray(stdtrit(found.degrees, _LEVEL) * errors)


def fit(values: SeedValues) -> Fit:
    """Fit value = trial + seed + noise by least squares."""
    numbers = list(values)
    estimates = np.array([values[number][0] for number in numbers], dtype=np.float64)
    covariance = np.eye(len(numbers))
    several = [i for i, number in enumerate(numbers) if len(values[number]) > 1]
    if not several:
        return Fit(numbers, estimates, covariance, math.nan, 0)
    # A trial with one seed tells nothing of the other seeds: it is left out.
    rows = [(k, j) for k, i in enumerate(several) for j in range(len(values[numbers[i]]))]
    targets = np.array([values[numbers[several[k]]][j] for k, j in rows], dtype=np.float64)
    design = np.zeros((len(rows), len(several) + max(j for _, j in rows)))
    for row, (k, j) in enumerate(rows):
        design[row, k] = 1
        if j:  # an effect beside that of the first seed
            design[row, len(several) + j - 1] = 1
    inverse = np.linalg.pinv(design.T @ design)
    solved = inverse @ design.T @ targets
    degrees = len(rows) - int(np.linalg.matrix_rank(design))
    with np.errstate(over="ignore"):
        squares = float(np.sum((targets - design @ solved) ** 2))
    estimates[several] = solved[: len(several)]
    covariance[np.ix_(several, several)] = inverse[: len(several), : len(several)]
    variance = squares / degrees if degrees else math.nan
    return Fit(numbers, estimates, covariance, variance, degrees)


def noise_of(values: SeedValues) -> Noise | None:
    """Return the noise between seeds; None if too few trials have several."""
    several = {number: seeds for number, seeds in values.items() if len(seeds) > 1}
    found = fit(several)
    if found.degrees == 0:
        return None
    with np.errstate(over="ignore"):
        squares = sum(float(np.var(seeds)) * len(seeds) for seeds in several.values())
    degrees = sum(len(seeds) - 1 for seeds in several.values())
    return Noise(math.sqrt(found.variance), math.sqrt(squares / degrees), len(several))
