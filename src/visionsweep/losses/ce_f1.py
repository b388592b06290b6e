"""Cross-entropy plus soft macro F1: a gradient from every sample, and the reported metric."""

import math

import torch
from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import Loss
from visionsweep.losses.class_weights import ClassWeights
from visionsweep.losses.cross_entropy import CrossEntropyLoss
from visionsweep.losses.f1 import SoftF1Loss


class CrossEntropyF1Loss(Loss):
    """ce_weight * CrossEntropyLoss + f1_weight * SoftF1Loss; class weights are for the first."""

    def __init__(
        self,
        ce_weight: float = 1.0,
        f1_weight: float = 1.0,
        absent_weight: float = 1.0,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor | None = None,
    ) -> None:
        """Raises ConfigError unless all are finite and >= 0, and one of the first two above 0."""
        super().__init__()
        for key, weight in (("ce_weight", ce_weight), ("f1_weight", f1_weight)):
            if not 0 <= weight < math.inf:
                raise ConfigError(f"loss.{key}: expected a number >= 0, such as 1, got {weight}")
        if ce_weight == f1_weight == 0:
            raise ConfigError(
                "loss.ce_weight and loss.f1_weight: expected one above 0, got 0 and 0"
            )
        self.ce_weight = ce_weight
        self.f1_weight = f1_weight
        self.cross_entropy = CrossEntropyLoss(class_weights, beta=beta, class_counts=class_counts)
        self.f1 = SoftF1Loss(absent_weight)

    def corrections(self) -> list[str]:
        """Return those of the cross-entropy."""
        return self.cross_entropy.corrections() if self.ce_weight else []

    def statistics(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (2 + 3K,): the statistics of the cross-entropy, then those of the soft F1."""
        return torch.cat(
            [self.cross_entropy.statistics(logits, targets), self.f1.statistics(logits, targets)]
        )

    def value(self, statistics: Tensor) -> Tensor:
        """Return the weighted sum of both losses."""
        cross_entropy = self.cross_entropy.value(statistics[:2])
        return self.ce_weight * cross_entropy + self.f1_weight * self.f1.value(statistics[2:])
