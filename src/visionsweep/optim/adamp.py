"""AdamP (Heo et al. 2021, arXiv 2006.08217): the reference, for any memory format."""

import adamp
from torch import Tensor
from torch.optim.optimizer import ParamsT


class AdamP(adamp.AdamP):  # type: ignore[misc]
    """``adamp.AdamP`` with ``reshape`` in place of ``view``.

    adamp 0.3.0 flattens parameters with ``view``, which raises RuntimeError for the weights of a
    channels_last model. Where ``view`` works, ``reshape`` is the same, and so are all results.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
    ) -> None:
        """``delta``: a weight with a smaller cosine to its gradient counts as scale-invariant.

        ``wd_ratio``: factor on the weight decay of such weights.
        """
        super().__init__(params, lr, betas, eps, weight_decay, delta, wd_ratio, nesterov)

    def _channel_view(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), -1)

    def _layer_view(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)
