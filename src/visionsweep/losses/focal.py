"""Focal loss on the softmax (Lin et al. 2017, arXiv 1708.02002, equation 4, for K classes)."""

import math

import torch
from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import SampleLoss, log_softmax
from visionsweep.losses.class_weights import ClassWeights


class FocalLoss(SampleLoss):
    """w_y (1 - p_y)^gamma * -log p_y, over the sum of w_y; gamma 0 is cross-entropy.

    The paper's alpha is the class weight. torchvision's focal loss differs: one sigmoid per class.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor | None = None,
    ) -> None:
        """Raises ConfigError unless gamma is finite and >= 0."""
        super().__init__(class_weights, beta=beta, class_counts=class_counts)
        if not 0 <= gamma < math.inf:
            raise ConfigError(f"loss.gamma: expected a number >= 0, such as 2, got {gamma}")
        self.gamma = gamma

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K)."""
        log_probs = log_softmax(logits)
        return self.weigh(complement(log_probs) ** self.gamma * -log_probs)


def complement(log_probs: Tensor) -> Tensor:
    """Return 1 - p, exact also for p near 1, and at least the dtype's smallest normal number.

    The floor matters at p = 1 only: there the derivative of (1 - p)^gamma is infinite for
    gamma < 1, and infinity times a loss of 0 is NaN. The loss is flat there, so the gradient that
    the floor cuts is 0.
    """
    return -torch.expm1(log_probs).clamp(max=-torch.finfo(log_probs.dtype).tiny)
