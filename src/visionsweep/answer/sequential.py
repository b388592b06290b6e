"""Looking at results while they come in, without being wrong more often than allowed.

Who tests after each round at 5 % and stops at the first success is wrong far more often than in
5 % (with ten looks, in 19 %). A group-sequential test spends the error over the looks instead.

Lan and DeMets (1983), "Discrete sequential boundaries for clinical trials", Biometrika 70(3), with
their spending function of the O'Brien-Fleming type: hardly anything is spent early, so the last
look is almost as powerful as a single test.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

_POINTS = 801  # of the grid on which the density of the statistic is carried from look to look
_LARGEST = 12.0  # standard deviations: beyond float64's tail of the normal distribution


def spent(fraction: float, error: float) -> float:
    """Return the two-sided error that may be spent by `fraction` (0 to 1] of the information.

    Half of it on each side, where it is 2 - 2 Phi(z / sqrt(fraction)).
    """
    return float(4 * norm.sf(norm.isf(error / 4) / math.sqrt(fraction)))


def nominal_levels(fractions: Sequence[float], error: float) -> list[float]:
    """Return the two-sided significance level of the test at each look.

    ``fractions``: the increasing shares of all information at the looks, such as 0.5 and 1.0. If
    nothing differs, and each look tests at its level, some look finds a difference with probability
    `error` at most (exactly `error` if the last share is 1 and the statistic is normal with
    independent increments).
    """
    return [float(2 * norm.sf(bound)) for bound in boundaries(fractions, error)]


def boundaries(fractions: Sequence[float], error: float) -> list[float]:
    """Return the critical value of |Z| at each look; see `nominal_levels`."""
    bounds: list[float] = []
    grid: NDArray[np.float64] = np.zeros(1)  # values of the sum so far, where it may go on ...
    weights: NDArray[np.float64] = np.ones(1)  # ... and their probabilities
    previous = 0.0
    for fraction in fractions:
        step = math.sqrt(fraction - previous)
        may_spend = spent(fraction, error) - (spent(previous, error) if previous else 0.0)

        def crossing(
            bound: float,
            scale: float = math.sqrt(fraction),
            step: float = step,
            grid: NDArray[np.float64] = grid,
            weights: NDArray[np.float64] = weights,
        ) -> float:
            limit = bound * scale
            tails = norm.sf((limit - grid) / step) + norm.sf((limit + grid) / step)
            return float(weights @ tails)

        if crossing(_LARGEST) >= may_spend:  # less than float64 can tell: no crossing now
            bound = _LARGEST
        else:
            bound = float(brentq(lambda b, c=crossing, m=may_spend: c(b) - m, 0.0, _LARGEST))
        bounds.append(bound)
        grid, weights = _carried(grid, weights, bound * math.sqrt(fraction), step)
        previous = fraction
    return bounds


def _carried(
    grid: NDArray[np.float64], weights: NDArray[np.float64], limit: float, step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum's values within the limits after one more step, with their probabilities.

    By Simpson's rule (Armitage, McPherson and Rowe 1969).
    """
    new = np.linspace(-limit, limit, _POINTS)
    density = norm.pdf((new[:, None] - grid[None, :]) / step) @ weights / step
    simpson = np.ones(_POINTS)
    simpson[1:-1:2], simpson[2:-1:2] = 4.0, 2.0
    return new, density * simpson * (new[1] - new[0]) / 3
