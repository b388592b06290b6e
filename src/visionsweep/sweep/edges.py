"""Parameters whose best values lie at an end of their range, so that the optimum may lie beyond.

The best quarter of the trials is compared with what a uniform draw would give, on the parameter's
own scale, and with the other trials, since samplers do not draw uniformly. How often an end is
named rightly and wrongly is counted on simulated sweeps in tests/sweep/test_edges.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from visionsweep.sweep.space.dimensions import Dimension, values
from visionsweep.sweep.trial_record import TrialRecord

MIN_TRIALS = 20  # that have the parameter
_MIN_BEST = 5
_SHARE = 0.25  # of the trials that count as the best
_ZONE = (0.1, 0.25)  # an end, as a share of the range: from, to
_MOST = 0.7  # of the best trials or more lie there
_CHANCE = 0.02  # of so many there, if drawn uniformly
_ERROR = 0.02  # of the rank test, over all numeric parameters together
_MIN_CHOICES = 3
_MAX_LISTED = 10_000


@dataclass(frozen=True)
class Edge:
    """An end of a range at which the best values of a parameter lie."""

    dimension: Dimension
    is_upper: bool
    num_there: int  # of the best
    num_best: int
    num_trials: int  # that ended and have the parameter

    @property
    def key(self) -> str:
        """The parameter."""
        return self.dimension.key


def edges(
    dimensions: Sequence[Dimension], trials: Sequence[TrialRecord], direction: str
) -> list[Edge]:
    """Return the ends at which the best values of numeric parameters lie.

    Numeric parameters are intervals, ranges, and three choices or more that are all numbers; not
    the keys of a zip. Pruned trials count as not among the best. An end that is 0, the first
    positive integer or, of a share, 1 is left out: nothing lies beyond.
    """
    numeric = {d.key: positions for d in dimensions if (positions := _scale(d)) is not None}
    sign = -1.0 if direction == "maximize" else 1.0
    ended = [t for t in trials if t.state in ("complete", "pruned") and t.duplicate_of is None]
    found = []
    for dimension in dimensions:
        scale = numeric.get(dimension.key)
        having = [trial for trial in ended if dimension.key in trial.params]
        complete = [t for t in having if t.state == "complete" and t.values is not None]
        num_best = min(max(_MIN_BEST, round(_SHARE * len(having))), len(complete))
        if scale is None or len(having) < MIN_TRIALS or num_best < _MIN_BEST:
            continue
        complete.sort(key=lambda trial: (sign * trial.values[0], trial.number))  # type: ignore[index]
        best = {trial.number for trial in complete[:num_best]}
        for is_upper in (False, True):
            if not _has_more(dimension, is_upper=is_upper):
                continue
            places = {t.number: scale.distance(t.params[dimension.key], is_upper) for t in having}
            there = _num_there(places, best, scale, is_upper=is_upper, error=_ERROR / len(numeric))
            if there:
                found.append(Edge(dimension, is_upper, there, num_best, len(having)))
    return found


def _num_there(
    places: dict[int, float], best: set[int], scale: "_Scale", *, is_upper: bool, error: float
) -> int:
    """Return how many of the best trials lie at an end; 0 if that may be chance.

    ``places``: the distance of each trial from that end, as a share of the range.
    """
    # As wide as the space of as many trials as there are best ones, within limits.
    nearest = sorted(places.values())[len(best) - 1]
    zone = min(_ZONE[1], max(_ZONE[0], nearest))
    there = sum(places[number] <= zone for number in best)
    if there < _MOST * len(best):
        return 0
    if _binomial_tail(len(best), there, scale.share(zone, is_upper)) > _CHANCE:
        return 0
    among = [places[number] for number in best]
    others = [place for number, place in places.items() if number not in best]
    return there if _rank_test(among, others) <= error else 0


@dataclass(frozen=True)
class _Scale:
    """Positions of values in their range, from 0 to 1, and how likely a uniform draw is there."""

    low: float
    high: float
    log: bool
    listed: tuple[float, ...] | None  # the values, if they are few; for choices their positions

    def distance(self, value: float, is_upper: bool) -> float:
        """Return how far a value is from an end, as a share of the range."""
        if self.log:
            position = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            position = (value - self.low) / (self.high - self.low)
        return 1 - position if is_upper else position

    def share(self, zone: float, is_upper: bool) -> float:
        """Return the share of uniform draws within `zone` of an end."""
        if self.listed is None:
            return zone
        # Optuna draws the integers of a logarithmic range as rounded numbers of a continuous one.
        weights = [math.log((v + 0.5) / (v - 0.5)) if self.log else 1.0 for v in self.listed]
        inside = [self.distance(v, is_upper) <= zone for v in self.listed]
        return sum(w for w, near in zip(weights, inside, strict=True) if near) / sum(weights)


class _Choices(_Scale):
    """Numbers as choices, in their order and at equal distances."""

    def distance(self, value: float, is_upper: bool) -> float:
        """Return how far a choice is from an end, as a share of the range."""
        assert self.listed is not None
        position = self.listed.index(value) / (len(self.listed) - 1)
        return 1 - position if is_upper else position


def _scale(dimension: Dimension) -> _Scale | None:
    """Return the scale of a numeric parameter; None for others, and for one without a choice."""
    distribution = dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        numbers = number_choices(dimension)
        return None if numbers is None else _Choices(0.0, 1.0, False, tuple(sorted(numbers)))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.low == distribution.high:
        return None
    found = values(distribution)
    is_listed = found is not None and len(found) <= _MAX_LISTED
    listed = tuple(map(float, found)) if found is not None and is_listed else None
    return _Scale(distribution.low, distribution.high, distribution.log, listed)


def number_choices(dimension: Dimension) -> list[float] | None:
    """Return the choices if they are three numbers or more, else None."""
    found = [] if dimension.is_zip else list(values(dimension.distribution) or ())
    is_numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in found)
    if not is_numeric or not all(map(math.isfinite, found)) or len(found) < _MIN_CHOICES:
        return None
    return found


def _has_more(dimension: Dimension, *, is_upper: bool) -> bool:
    """Return whether values beyond an end make sense."""
    distribution = dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        numbers = number_choices(dimension) or [0]
        low, high, is_log = min(numbers), max(numbers), False
        is_whole = all(isinstance(number, int) for number in numbers)
        step = 1.0 if is_whole else 0.0
    else:
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high, is_log = distribution.low, distribution.high, distribution.log
        is_whole = isinstance(distribution, IntDistribution)
        step = distribution.step or 0.0
    if is_upper:
        return is_whole or is_log or not (low >= 0 and high == 1)
    return low < 0 or (low > 0 and low - step >= (1 if is_whole else 0))


def _binomial_tail(draws: int, hits: int, chance: float) -> float:
    """Return the probability of `hits` or more."""
    from scipy.special import bdtrc  # takes a while

    return float(bdtrc(hits - 1, draws, chance)) if hits else 1.0


def _rank_test(smaller: Sequence[float], larger: Sequence[float]) -> float:
    """Return the one-sided p-value of Mann and Whitney's test that the first are the smaller."""
    from scipy.stats import mannwhitneyu  # takes a second

    if len({*smaller, *larger}) < 2 or not larger:
        return 1.0
    found = mannwhitneyu(smaller, larger, alternative="less", method="asymptotic")
    return float(found.pvalue)
