"""An interval of the difference between two predictions for the same images."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES: Final = 1000

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def difference_interval(
    difference: Callable[[Floats], float], group_of: Indices, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of a difference over reweighted groups of images.

    ``difference``: takes the weight of each image (N,). ``group_of``: (N,) which images share one.
    The Bayesian bootstrap (Rubin 1981, Annals of Statistics 9), as `answer/bootstrap.py` has it for
    runs: weights are exponential, so that no class of a few images vanishes. The same arguments
    give the same interval.
    """
    rng = np.random.default_rng(0)
    num_groups = int(group_of.max()) + 1
    values = np.empty(NUM_RESAMPLES)
    for index in range(NUM_RESAMPLES):
        values[index] = difference(rng.standard_exponential(num_groups)[group_of])
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
