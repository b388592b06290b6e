"""A mean over seeds with its uncertainty: from images and from seeds.

The estimate is a mean over S seeds. Its variance has a part of the images, which the bootstrap
gives and all seeds share, and a part of the seeds (and of what images and seeds do together), known
from S values only. Cochran (1964, Biometrics 20) weighs the quantiles of both by their variances:
z for the images, Student's t with S - 1 degrees of freedom for the seeds. docs/answers.md compares
this with the alternatives.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from visionsweep.answer.metrics import Array


@dataclass(frozen=True)
class Estimate:
    """A value and its uncertainty."""

    value: float
    image_variance: float  # of the value, shared by all seeds
    seed_variance: float  # of the value; 0 with a single seed, where it is not known
    num_seeds: int
    degrees: float  # of freedom of the seeds' variance
    # of the value by images alone, as if these seeds were the only ones
    of_images_alone: float = 0.0

    def half_width(self, level: float = 0.95) -> float:
        """Return how far the interval at `level` reaches to each side of the value."""
        return self._half_width((1 - level) / 2)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval at `level`."""
        half = self.half_width(level)
        return self.value - half, self.value + half

    def half_width_of_images(self, level: float = 0.95) -> float:
        """Return how far the interval would reach if only the images were uncertain."""
        return float(stats.norm.isf((1 - level) / 2)) * math.sqrt(self.of_images_alone)

    def p_value(self) -> float:
        """Return the two-sided p-value of the hypothesis that the true value is 0.

        At least the one of the images alone: two or three seeds may agree by chance.
        """
        if self.value == 0:
            return 1.0
        alone = 0.0
        if self.of_images_alone > 0:
            alone = 2 * float(stats.norm.sf(abs(self.value) / math.sqrt(self.of_images_alone)))
        return max(self._p_value(), alone)

    def _p_value(self) -> float:
        if self.image_variance + self.seed_variance == 0:
            return 0.0
        distance = abs(self.value)

        def excess(log_tail: float) -> float:
            return self._half_width(math.exp(log_tail)) - distance

        low, high = math.log(1e-15), math.log(0.5)
        if excess(low) <= 0:
            return 2e-15
        return float(2 * math.exp(optimize.brentq(excess, low, high)))

    def probability_positive(self) -> float:
        """Return the probability that the true value is above 0."""
        tail = self.p_value() / 2
        return 1 - tail if self.value > 0 else tail

    def half_width_with(self, num_seeds: int, level: float = 0.95) -> float:
        """Return the half width to expect with another number of seeds."""
        per_seed = self.seed_variance * self.num_seeds
        degrees = num_seeds - 1
        with_more = replace(
            self, seed_variance=per_seed / num_seeds, num_seeds=num_seeds, degrees=degrees
        )
        return with_more.half_width(level)

    def _half_width(self, tail: float) -> float:
        images, seeds = self.image_variance, self.seed_variance
        if images + seeds == 0:
            return 0.0
        z = float(stats.norm.isf(tail))
        t = float(stats.t.isf(tail, self.degrees)) if seeds > 0 else 0.0
        return (z * images + t * seeds) / math.sqrt(images + seeds)


def estimate_mean(values: Array, resampled: Array) -> Estimate:
    """Estimate the mean of `values` (S,), whose bootstrap over images is `resampled` (B, S)."""
    noise = resampled - values
    return _combined(
        value=float(values.mean()),
        image_noise=noise.mean(axis=1),
        per_seed=_within(noise) / len(values),
        seed_variance=_variance_of_mean(values),
        num_seeds=len(values),
        degrees=len(values) - 1,
    )


def estimate_difference(
    first: Array, first_resampled: Array, second: Array, second_resampled: Array
) -> Estimate:
    """Estimate the difference of two means whose runs are not paired: (S,), (B, S); (T,), (B, T).

    Degrees of freedom by Welch and Satterthwaite. A side with one run takes the variance of the
    other side.
    """
    sides = [(first, first_resampled - first), (second, second_resampled - second)]
    spread = [_variance_of_mean(v) * len(v) for v, _ in sides]
    known = [s for s, (v, _) in zip(spread, sides, strict=True) if len(v) > 1]
    fallback = known[0] if len(known) == 1 else 0.0
    parts = [
        (s if len(v) > 1 else fallback) / len(v) for s, (v, _) in zip(spread, sides, strict=True)
    ]
    freedom = [
        part**2 / (len(v) - 1) for part, (v, _) in zip(parts, sides, strict=True) if len(v) > 1
    ]
    total = sum(parts)
    degrees = total**2 / sum(freedom) if sum(freedom) > 0 else math.inf
    if fallback:  # one side only tells of the spread
        degrees = max(len(v) for v, _ in sides) - 1
    return _combined(
        value=float(first.mean() - second.mean()),
        image_noise=sides[0][1].mean(axis=1) - sides[1][1].mean(axis=1),
        per_seed=sum(_within(noise) / noise.shape[1] for _, noise in sides),
        seed_variance=total,
        num_seeds=min(len(first), len(second)) if len(known) > 1 else max(len(first), len(second)),
        degrees=degrees,
    )


def _combined(
    *,
    value: float,
    image_noise: Array,
    per_seed: float,
    seed_variance: float,
    num_seeds: int,
    degrees: float,
) -> Estimate:
    """Take from the images' variance what the variance between seeds holds already."""
    alone = float(image_noise.var()) if len(image_noise) else 0.0
    # seeds that agree in every digit tell nothing of their spread
    shared = max(0.0, alone - per_seed) if seed_variance > 0 else alone
    return Estimate(value, shared, seed_variance, num_seeds, degrees, alone)


def _within(noise: Array) -> float:
    """Return the mean variance between seeds of the images' noise (B, S): what is not shared."""
    if noise.shape[1] < 2 or len(noise) == 0:
        return 0.0
    return float(noise.var(axis=1, ddof=1).mean())


def _variance_of_mean(values: Array) -> float:
    return float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
