"""Poly-1 loss (Leng et al. 2022, arXiv 2204.12511, equation 5)."""

import math

from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import SampleLoss, log_softmax
from visionsweep.losses.class_weights import ClassWeights


class PolyLoss(SampleLoss):
    """w_y (-log p_y + epsilon (1 - p_y)), over the sum of w_y; epsilon 0 is cross-entropy.

    epsilon is added to the first coefficient of the expansion of -log p in powers of 1 - p; below
    -1 the coefficient would be negative and the loss would reward confident errors.
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor | None = None,
    ) -> None:
        """Raises ConfigError unless epsilon is finite and >= -1."""
        super().__init__(class_weights, beta=beta, class_counts=class_counts)
        if not -1 <= epsilon < math.inf:
            raise ConfigError(f"loss.epsilon: expected a number >= -1, such as 1, got {epsilon}")
        self.epsilon = epsilon

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K)."""
        log_probs = log_softmax(logits)
        # expm1: 1 - p without cancellation, so that epsilon = -1 cannot round below 0.
        return self.weigh(-log_probs - self.epsilon * log_probs.expm1())
