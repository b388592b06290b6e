"""Logit-adjusted cross-entropy for long tails (Menon et al. 2021, arXiv 2007.07314, eq. 10)."""

import math

from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import SampleLoss, log_softmax
from visionsweep.losses.class_weights import ClassWeights


class LogitAdjustedLoss(SampleLoss):
    """Cross-entropy of z + tau log(prior), so that argmax z is the prediction for balanced classes.

    It aims at balanced accuracy. tau 0 is cross-entropy. Class weights are those of the paper's
    equation 11; "balanced" ones correct for the prior a second time.
    """

    log_prior: Tensor

    def __init__(
        self,
        tau: float = 1.0,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor,
    ) -> None:
        """``class_counts``: (K,) int64 training images per class, whose shares are the prior.

        A class without images counts as one, since log 0 would remove it from the softmax. Raises
        ConfigError unless tau is finite and >= 0.
        """
        super().__init__(class_weights, beta=beta, class_counts=class_counts)
        if not 0 <= tau < math.inf:
            raise ConfigError(f"loss.tau: expected a number >= 0, such as 1, got {tau}")
        self.tau = tau
        counts = class_counts.clamp(min=1).double()
        self.register_buffer("log_prior", (counts / counts.sum()).log().float(), persistent=False)

    def corrections(self) -> list[str]:
        """Return the adjustment and the class weights."""
        adjustment = f"the logit adjustment (loss.tau={self.tau:g})"
        return [adjustment] * (self.tau > 0) + super().corrections()

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K)."""
        # float32 from here on, by promotion: `log_prior` is float32.
        return self.weigh(-log_softmax(logits + self.tau * self.log_prior))
