"""Asymmetric loss for one label per sample (Ridnik et al. 2021, arXiv 2009.14119)."""

import math

from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import SampleLoss, log_softmax
from visionsweep.losses.class_weights import ClassWeights
from visionsweep.losses.focal import complement


class AsymmetricLoss(SampleLoss):
    """Label smoothing with focus (1 - p_y)^gamma_pos on the target, p_c^gamma_neg on the others.

    For class indices this is timm's ``AsymmetricLossSingleLabel`` (its ``eps`` is our
    ``smoothing``), with class weights placed as in ``LabelSmoothingLoss``, which is this loss at
    gamma_pos = gamma_neg = 0. A soft target, which timm refuses, is the mixture of its classes'
    losses: the focus follows the classes that are mixed, not the mixed target.
    """

    def __init__(
        self,
        gamma_pos: float = 1.0,
        gamma_neg: float = 4.0,
        smoothing: float = 0.1,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor | None = None,
    ) -> None:
        """Raises ConfigError unless both gammas are finite and >= 0 and 0 <= smoothing < 1."""
        super().__init__(class_weights, beta=beta, class_counts=class_counts)
        for key, gamma in (("gamma_pos", gamma_pos), ("gamma_neg", gamma_neg)):
            if not 0 <= gamma < math.inf:
                raise ConfigError(f"loss.{key}: expected a number >= 0, got {gamma}")
        if not 0 <= smoothing < 1:
            raise ConfigError(
                f"loss.smoothing: expected a number in [0, 1), such as 0.1, got {smoothing}"
            )
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.smoothing = smoothing

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K)."""
        log_probs = log_softmax(logits)
        num_classes = logits.shape[1]
        as_target = self.weigh(complement(log_probs) ** self.gamma_pos * -log_probs)
        # p^gamma as an exponential: a power's derivative is infinite at p = 0 for gamma below 1.
        as_other = self.weigh((self.gamma_neg * log_probs).exp() * -log_probs)
        other_classes = as_other.sum(dim=1, keepdim=True) - as_other
        share = self.smoothing / num_classes
        return (1 - self.smoothing + share) * as_target + share * other_classes
