"""Cross-entropy against smoothed targets (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""

from torch import Tensor

from visionsweep.errors import ConfigError
from visionsweep.losses.base import SampleLoss, log_softmax
from visionsweep.losses.class_weights import ClassWeights


class LabelSmoothingLoss(SampleLoss):
    """torch's ``cross_entropy(label_smoothing=)``: each class gets smoothing / K, also the target.

    With class weights: ((1 - s) w_y nll_y + s/K sum_c w_c nll_c), over the sum of w_y.
    Implementations that spread s / (K - 1) over the other classes are the same loss at
    s * (K - 1) / K.
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        class_weights: ClassWeights = "none",
        *,
        beta: float = 0.999,
        class_counts: Tensor | None = None,
    ) -> None:
        """Raises ConfigError unless 0 <= smoothing < 1."""
        super().__init__(class_weights, beta=beta, class_counts=class_counts)
        if not 0 <= smoothing < 1:
            raise ConfigError(
                f"loss.smoothing: expected a number in [0, 1), such as 0.1, got {smoothing}"
            )
        self.smoothing = smoothing

    def class_losses(self, logits: Tensor) -> Tensor:
        """Return (N, K)."""
        losses = self.weigh(-log_softmax(logits))
        return (1 - self.smoothing) * losses + self.smoothing * losses.mean(dim=1, keepdim=True)
