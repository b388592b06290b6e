"""Metrics from counts per class, for many weightings of the images at once.

The formulas and the rule for absent classes are those of `training/metrics.py`, which needs torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 or float64
Labels = NDArray[np.integer[Any]]
Absent = Literal["zero", "skip"]


@dataclass(frozen=True)
class Counts:
    """Weighted numbers of images per class, each (..., K): one row per weighting."""

    correct: Array
    actual: Array
    predicted: Array

    @classmethod
    def of_matrix(cls, matrix: Array) -> "Counts":
        """Return the counts of a confusion matrix (K, K), rows by target."""
        return cls(matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0))

    @classmethod
    def of_labels(cls, preds: Labels, targets: Labels, num_classes: int) -> "Counts":
        """Return the counts (K,) of N predictions that all count once."""
        labels = targets[preds == targets], targets, preds
        return cls(*(np.bincount(k, minlength=num_classes).astype(np.float64) for k in labels))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.correct + other.correct,
            self.actual + other.actual,
            self.predicted + other.predicted,
        )


def count(preds: Labels, targets: Labels, num_classes: int, weights: Array) -> Counts:
    """Return the counts of N predictions under B weightings of the images.

    ``preds``, ``targets``: (N,) class indices in [0, K); ``weights``: (B, N). The result has the
    dtype of the weights.
    """
    table = np.zeros((len(targets), 3 * num_classes), dtype=weights.dtype)
    rows = np.arange(len(targets))
    table[rows, targets] = preds == targets
    table[rows, num_classes + targets] = 1
    table[rows, 2 * num_classes + preds] = 1
    sums = weights @ table
    correct, actual, predicted = np.split(sums, 3, axis=-1)
    return Counts(correct, actual, predicted)


def _f1(counts: Counts) -> Array:
    return _ratio(2 * counts.correct, counts.actual + counts.predicted)


def _precision(counts: Counts) -> Array:
    return _ratio(counts.correct, counts.predicted)


def _recall(counts: Counts) -> Array:
    return _ratio(counts.correct, counts.actual)


def _ratio(values: Array, divisor: Array) -> Array:
    """Return the ratio, 0 where the divisor is 0."""
    ratio: Array = values / np.where(divisor > 0, divisor, 1)
    return ratio


def _macro(values: Array, counts: Counts, absent: Absent) -> Array:
    if absent == "zero":
        return np.asarray(values.mean(axis=-1))
    return _mean(values, counts.actual + counts.predicted > 0)


def _weighted(values: Array, counts: Counts, _: Absent) -> Array:
    return _mean(values, counts.actual)


def _balanced_accuracy(values: Array, counts: Counts, _: Absent) -> Array:
    return _mean(values, counts.actual > 0)


def _accuracy(_: Array, counts: Counts, __: Absent) -> Array:
    return _ratio(counts.correct.sum(axis=-1), counts.actual.sum(axis=-1))


def _mean(values: Array, weights: Array) -> Array:
    return _ratio((values * weights).sum(axis=-1), weights.sum(axis=-1))


# name -> (value of each class, how they become one)
_METRICS: dict[str, tuple[Callable[[Counts], Array], Callable[[Array, Counts, Absent], Array]]] = {
    "f1_macro": (_f1, _macro),
    "accuracy": (_recall, _accuracy),
    "balanced_accuracy": (_recall, _balanced_accuracy),
    "precision_macro": (_precision, _macro),
    "recall_macro": (_recall, _macro),
    "f1_weighted": (_f1, _weighted),
    "precision_weighted": (_precision, _weighted),
    "recall_weighted": (_recall, _weighted),
}
METRICS = tuple(_METRICS)


def score(name: str, counts: Counts, absent: Absent) -> Array:
    """Return the metric `name`, one of `METRICS`, of each row of counts: (...,) in [0, 1]."""
    of_class, combine = _METRICS[name]
    return combine(of_class(counts), counts, absent)


def class_f1(counts: Counts) -> Array:
    """Return the F1 of each class, (..., K)."""
    return _f1(counts)
