"""Any optimizer of timm, by its name."""

import torch
from torch.optim.optimizer import ParamsT

from visionsweep.errors import ConfigError
from visionsweep.text import did_you_mean


def create_optimizer(
    params: ParamsT, name: str, lr: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Return timm's optimizer `name`, or Lookahead around it for ``lookahead_NAME``.

    Its momentum is 0.9. Groups in ``params`` keep their own lr and weight decay. Raises ConfigError
    for a name that timm lacks, whose package is not installed, or that needs second derivatives.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = list_optimizers()
    wanted = name.lower()
    if wanted.removeprefix("lookahead_") not in names:
        hint = did_you_mean(wanted, names) or f"; it has {', '.join(names)}"
        raise ConfigError(f"optim.name: timm has no optimizer '{name}'{hint}")
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            params, opt=wanted, lr=lr, weight_decay=weight_decay
        )
    except (AssertionError, ImportError) as error:
        raise ConfigError(
            f"optim.name: cannot use '{name}' here ({error}); choose another name"
        ) from error
    if getattr(optimizer, "is_second_order", False):
        raise ConfigError(
            f"optim.name: '{name}' needs second derivatives, which training does not compute"
        )
    return optimizer
