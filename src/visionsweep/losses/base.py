"""The base of all losses: sums that add over micro-batches, and a function of the summed sums.

Owns the one definition of weights and soft targets that every loss follows, but not accumulation.
"""

import abc

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionsweep.losses.class_weights import ClassWeights, compute_class_weights


def log_softmax(logits: Tensor) -> Tensor:
    """Return (N, K) log-probabilities in the dtype of the logits, but at least float32.

    float16 and bfloat16 round a probability near 1 to 1, and with it the loss to 0.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return F.log_softmax(logits, dim=1)


class Loss(nn.Module, abc.ABC):
    """A loss as additive statistics.

    For batches a and b of one update, ``value(statistics(a) + statistics(b))`` is the loss of the
    batch that holds both. So a large batch is the exact sum of its micro-batches, whatever their
    sizes.

    To write your own, derive from ``SampleLoss`` if the loss is a weighted mean over samples, else
    from this class. ``build`` passes those of these arguments that your class names, besides the
    keys of its YAML:

    - ``num_classes``: int, the number of classes K, including those without an image.
    - ``class_counts``: (K,) int64 Tensor, training images per class (validation ones left out).
    """

    def corrections(self) -> list[str]:
        """Return the settings that make up for rare classes, to warn if there is more than one."""
        return []

    @abc.abstractmethod
    def statistics(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (S,) sums over the batch, float32 (float64 for float64 logits).

        ``logits``: (N, K) unnormalized, any float dtype. ``targets``: (N,) int64 class indices, or
        (N, K) float probabilities.
        """

    @abc.abstractmethod
    def value(self, statistics: Tensor) -> Tensor:
        """Return the scalar loss of the (S,) summed statistics."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of one batch."""
        return self.value(self.statistics(logits, targets))


class SampleLoss(Loss):
    """A loss with one value and one weight per sample: the sum of values over the sum of weights.

    A soft target is a mixture of hard ones: its loss is ``sum_c t_c * class_losses_c`` and its
    weight is ``sum_c t_c * w_c``, so a one-hot row and a class index give the same numbers.
    (torch's ``cross_entropy`` divides soft targets by N instead, which changes the scale as soon as
    class weights are set.)

    To write your own, derive from this class and implement ``class_losses``. To offer class
    weights, take ``class_weights``, ``beta`` and ``class_counts`` and pass them on. ``Loss`` lists
    the arguments that ``build`` passes.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor | None = None,
    ) -> None:
        """See ``compute_class_weights`` for the arguments and what it raises."""
        super().__init__()
        weights = compute_class_weights(class_weights, class_counts, beta)
        self.register_buffer("class_weights", weights, persistent=False)

    def corrections(self) -> list[str]:
        """Return the class weights, unless they are all the same."""
        weights = self.class_weights
        return [] if weights is None or bool((weights == weights[0]).all()) else ["class weights"]

    @abc.abstractmethod
    def class_losses(self, logits: Tensor) -> Tensor:
        """Return the weighted loss of each sample if its target were class k.

        (N, K), at least float32.
        """

    def weigh(self, losses: Tensor) -> Tensor:
        """Return (N, K) losses with column k multiplied by the weight of class k."""
        return losses if self.class_weights is None else losses * self.class_weights

    def sample_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the (N,) weighted losses."""
        losses = self.class_losses(logits)
        if targets.ndim == 1:
            return losses.gather(1, targets[:, None])[:, 0]
        return (targets * losses).sum(dim=1)

    def sample_weights(self, targets: Tensor) -> Tensor:
        """Return the (N,) weights; they depend on the targets only."""
        if self.class_weights is None:
            return torch.ones(len(targets), device=targets.device)
        if targets.ndim == 1:
            return self.class_weights[targets]
        # Not `targets @ class_weights`: autocast would round a matrix product to bfloat16.
        return (targets * self.class_weights).sum(dim=1)

    def statistics(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (2,): the sum of losses and the sum of weights."""
        return torch.stack(
            [self.sample_losses(logits, targets).sum(), self.sample_weights(targets).sum()]
        )

    def value(self, statistics: Tensor) -> Tensor:
        """Return the weighted mean."""
        return statistics[0] / statistics[1]
