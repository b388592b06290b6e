"""Soft macro F1: the metric itself, with probabilities in place of decisions."""

import math

import torch
from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import Loss, log_softmax


class SoftF1Loss(Loss):
    """1 - mean of F1_c = 2 tp_c / (P_c + T_c) over classes with targets + a term for the others.

    tp_c, P_c and T_c are sums over the update of p_c t_c, of p_c and of t_c. The loss is a function
    of these sums, so it is accumulated in two passes, not as a mean of micro-batches.

    A class without targets has tp 0, so its F1 is 0 whatever is predicted. In the mean it would be
    a floor: a perfect batch with 12 of 18 classes would have loss 0.333 (a shuffled batch of 32
    often misses classes if they are many or unbalanced). Left out, probability given to it would
    cost the recall of the true class but no precision. So it is left out of the mean, and its false
    positives are a separate term: ``absent_weight * sum over absent c of P_c / sum of T``. Then a
    perfect batch has loss 0. Nothing is clamped, so no gradient is lost at either end.
    """

    def __init__(self, absent_weight: float = 1.0) -> None:
        """Raises ConfigError unless absent_weight is finite and >= 0."""
        super().__init__()
        if not 0 <= absent_weight < math.inf:
            raise ConfigError(
                f"loss.absent_weight: expected a number >= 0, such as 1, got {absent_weight}"
            )
        self.absent_weight = absent_weight

    def statistics(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (3K,): true positives, sums of probabilities and sums of targets, K of each."""
        probs = log_softmax(logits).exp()
        if targets.ndim == 1:
            targets = torch.zeros_like(probs).scatter(1, targets[:, None], 1.0)
        return torch.cat([(probs * targets).sum(dim=0), probs.sum(dim=0), targets.sum(dim=0)])

    def value(self, statistics: Tensor) -> Tensor:
        """Return the scalar loss of the (3K,) summed statistics."""
        true_positives, predicted, actual = statistics.chunk(3)
        is_present = actual > 0
        # `where` before the division: 0 / 0 of an absent class would make the gradient NaN.
        f1 = 2 * true_positives / torch.where(is_present, predicted + actual, 1.0)
        false_positives = torch.where(is_present, 0.0, predicted).sum() / actual.sum()
        return 1 - (f1 * is_present).sum() / is_present.sum() + self.absent_weight * false_positives
