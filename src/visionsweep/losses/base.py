"""What a loss is here: sums that add over micro-batches, and a function of the summed sums.

Owns the one definition of weights and soft targets that every loss follows. Does not own accumulation.
"""

import abc
from typing import ClassVar

import torch
from torch import Tensor, nn


class Loss(nn.Module, abc.ABC):
    """A loss as additive statistics.

    For batches a and b of one update, ``value(statistics(a) + statistics(b))`` is the loss of the batch that
    holds both. So a large batch is the exact sum of its micro-batches, whatever their sizes.
    """

    # True: `value` divides a sum by a weight that does not depend on the logits, so an update needs one pass.
    is_sum_over_samples: ClassVar[bool] = False

    @abc.abstractmethod
    def statistics(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (S,) float32 sums over the batch.

        ``logits``: (N, K) unnormalized, any float dtype. ``targets``: (N,) int64 class indices, or (N, K)
        float probabilities.
        """

    @abc.abstractmethod
    def value(self, statistics: Tensor) -> Tensor:
        """Return the scalar loss of the (S,) summed statistics."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of one batch."""
        return self.value(self.statistics(logits, targets))


class SampleLoss(Loss):
    """A loss with one value and one weight a sample; the batch's loss is their sum over the weights' sum.

    A soft target is a mixture of hard ones: its loss is ``sum_c t_c * class_losses_c`` and its weight is
    ``sum_c t_c * w_c``, so a one-hot row and a class index give the same numbers. (torch's ``cross_entropy``
    divides soft targets by N instead, which changes the scale as soon as class weights are set.)
    """

    is_sum_over_samples = True
    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)

    @abc.abstractmethod
    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K) float32: the weighted loss of each sample if its target were class k."""

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the (N,) weighted losses."""
        losses = self.class_losses(logits)
        if targets.ndim == 1:
            return losses.gather(1, targets[:, None])[:, 0]
        return (targets * losses).sum(dim=1)

    def sample_weights(self, targets: Tensor) -> Tensor:
        """Return the (N,) weights that the sum of losses is divided by; they depend on the targets only."""
        if self.class_weights is None:
            return torch.ones(len(targets), device=targets.device)
        if targets.ndim == 1:
            return self.class_weights[targets]
        return targets @ self.class_weights

    def statistics(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (2,): the sum of losses and the sum of weights."""
        return torch.stack([self.sample_losses(logits, targets).sum(), self.sample_weights(targets).sum()])

    def value(self, statistics: Tensor) -> Tensor:
        """Return the weighted mean."""
        return statistics[0] / statistics[1]
