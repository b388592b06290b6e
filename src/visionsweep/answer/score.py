"""One number for predicted probabilities, also for resampled images and other class shares."""

from collections.abc import Callable
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer import metrics
from visionsweep.answer.metrics import Counts
from visionsweep.rundir.predictions import log_probabilities

Metric = Literal["log_loss", "f1_macro", "accuracy", "balanced_accuracy"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Scorer = Callable[[Floats | None], float]


def scorer(metric: Metric, probabilities: NDArray[np.floating], targets: Indices) -> Scorer:
    """Return a function of how often each image (N,) counts (None: once) that gives the metric.

    ``probabilities``: (N, K), ``targets``: (N,).
    """
    if metric == "log_loss":
        given = probabilities[np.arange(len(targets)), targets].astype(np.float64)
        losses = -log_probabilities(given)
        return lambda weights: float(np.average(losses, weights=weights))
    num_classes = probabilities.shape[1]
    cells = targets * num_classes + probabilities.argmax(axis=1)

    def of_matrix(weights: Floats | None) -> float:
        counts = np.bincount(cells, weights, num_classes**2).astype(np.float64)
        of_classes = Counts.of_matrix(counts.reshape(num_classes, num_classes))
        return float(metrics.score(metric, of_classes, "zero"))

    return of_matrix


def score(metric: Metric, probabilities: NDArray[np.floating], targets: Indices) -> float:
    """Return the metric of probabilities (N, K) for targets (N,)."""
    return scorer(metric, probabilities, targets)(None)


def cost(metric: Metric, probabilities: NDArray[np.floating], targets: Indices) -> float:
    """Return the metric such that less is better."""
    value = score(metric, probabilities, targets)
    return value if metric == "log_loss" else -value


def f1_macro(matrix: Floats) -> float:
    """Return the macro F1 of (K, K) counts or weights, rows by target; a ratio over 0 is 0.

    A class with neither target nor prediction counts as 0.
    """
    return float(metrics.score("f1_macro", Counts.of_matrix(matrix), "zero"))


def with_prior(matrix: Floats, prior: Floats | None) -> Floats:
    """Return a confusion matrix (K, K) as if the classes had the shares `prior` (K,).

    Each row is scaled to its class's share: what happens to an image of a class does not depend on
    how frequent the class is (label shift). None: as it is. A row without images stays empty.
    """
    if prior is None:
        return matrix
    support = matrix.sum(axis=1, keepdims=True)
    scaled: Floats = matrix * prior[:, None] / np.where(support > 0, support, 1)
    return scaled
