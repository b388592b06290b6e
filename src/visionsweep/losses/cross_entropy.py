"""Softmax cross-entropy."""

from torch import Tensor

from visionsweep.losses.base import SampleLoss, log_softmax


class CrossEntropyLoss(SampleLoss):
    """-w_y log p_y over the sum of w_y: torch's ``cross_entropy``, one-hot rows equal to indices."""

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K): w_k * -log p_k."""
        return self.weigh(-log_softmax(logits))
