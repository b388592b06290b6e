"""One weight a class, from the training set's class counts or from a list.

Every scheme has mean 1 over the classes that occur, so a rule chooses how classes compare and not the scale.
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
    """Return (K,) float32 weights, or None where all classes weigh the same.

    ``spec``: "none"; "balanced", 1 / n_c; "effective", the inverse effective number of samples
    (1 - beta) / (1 - beta^n_c) of Cui et al. 2019, arXiv 1901.05555, equation 2, with 0 <= beta < 1 (0 is
    "none", towards 1 is "balanced"); or K positive numbers in label order, taken as they are.
    ``class_counts``: (K,) int64 training images a class; every spec but "none" needs them.

    A class without images takes no part in the normalisation and has weight 1: no sample ever uses it, and an
    empty class is reported where the data is read. Raises ConfigError for an unknown spec, a list that does
    not fit, or a beta out of range.
    """
    if not 0 <= beta < 1:
        raise ConfigError(f"loss.beta: got {beta}, expected a number in [0, 1), for example 0.999")
    if spec == "none":
        return None
    if isinstance(spec, str) and spec not in ("balanced", "effective"):
        raise ConfigError(
            f"loss.class_weights: got '{spec}', expected none, balanced, effective or a list of K numbers"
        )
    if class_counts is None:
        raise ValueError("class weights need class_counts, the number of training images a class")
    if not isinstance(spec, str):
        return _listed_weights(spec, num_classes=len(class_counts))
    counts = class_counts.double()
    inverse = 1 / counts if spec == "balanced" else (1 - beta) / (1 - beta**counts)
    is_present = class_counts > 0
    return torch.where(is_present, inverse / inverse[is_present].mean(), 1.0).float()


def _listed_weights(weights: Sequence[float], num_classes: int) -> Tensor:
    if len(weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights: got {len(weights)} numbers, expected {num_classes}: one a class, by label"
        )
    for weight in weights:
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise ConfigError(
                f"loss.class_weights: got {weight!r} in the list, expected numbers above 0"
            )
    return torch.tensor(weights, dtype=torch.float32)
