"""One weight per class, from the training set's class counts or from a list.

Computed weights have mean 1 over the classes that occur, so they keep the scale of the loss.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from visionsweep.errors import ConfigError

ClassWeights = Literal["none", "balanced", "effective"] | Sequence[float]


def compute_class_weights(
    spec: ClassWeights, class_counts: Tensor | None, beta: float
) -> Tensor | None:
    """Return (K,) float32 weights, or None if all classes weigh the same.

    ``spec``: "none"; "balanced", 1 / n_c; "effective", the inverse effective number of samples
    (1 - beta) / (1 - beta^n_c) of Cui et al. 2019, arXiv 1901.05555, equation 2, with 0 <= beta < 1
    (0 equals "none", towards 1 is "balanced"); or K positive numbers in label order, used as given.
    ``class_counts``: (K,) int64 training images per class; every spec but "none" needs them.

    A class without images has weight 1 and does not count in the mean: no sample uses its weight.
    Raises ConfigError for an unknown spec, a list that does not fit, or a beta out of range.
    """
    if not 0 <= beta < 1:
        raise ConfigError(f"loss.beta: expected a number in [0, 1), such as 0.999, got {beta}")
    if spec == "none":
        return None
    if isinstance(spec, str) and spec not in ("balanced", "effective"):
        raise ConfigError(
            "loss.class_weights: expected none, balanced, effective or a list of one number per "
            f"class, got '{spec}'"
        )
    if class_counts is None:
        raise ValueError("class weights need class_counts, the training images per class")
    if not isinstance(spec, str):
        return _listed_weights(spec, num_classes=len(class_counts))
    counts = class_counts.double()
    inverse = 1 / counts if spec == "balanced" else (1 - beta) / (1 - beta**counts)
    is_present = class_counts > 0
    return torch.where(is_present, inverse / inverse[is_present].mean(), 1.0).float()


def _listed_weights(weights: Sequence[float], num_classes: int) -> Tensor:
    if len(weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights: expected {num_classes} numbers, one per class in label order, "
            f"got {len(weights)}"
        )
    for weight in weights:
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise ConfigError(
                f"loss.class_weights: expected numbers above 0, got {weight!r} in the list"
            )
    return torch.tensor(weights, dtype=torch.float32)
