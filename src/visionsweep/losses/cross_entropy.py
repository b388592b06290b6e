"""Softmax cross-entropy."""

import torch
from torch import Tensor
from torch.nn import functional as F

from visionsweep.losses.base import SampleLoss, log_softmax


class CrossEntropyLoss(SampleLoss):
    """-w_y log p_y over the sum of w_y: torch's ``cross_entropy``, soft targets as mixtures."""

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K): w_k * -log p_k."""
        return self.weigh(-log_softmax(logits))

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the (N,) weighted losses; torch's kernel for class indices is a third faster."""
        if targets.ndim == 1:
            dtype = torch.promote_types(logits.dtype, torch.float32)
            return F.cross_entropy(
                logits.to(dtype), targets, weight=self.class_weights, reduction="none"
            )
        return super().sample_losses(logits, targets)
