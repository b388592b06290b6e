"""Any optimizer of timm, by its name."""

import difflib

import torch
from torch.optim.optimizer import ParamsT

from visionsweep.errors import ConfigError


def create_optimizer(
    params: ParamsT, name: str, lr: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """Return timm's optimizer `name`, or Lookahead around it for ``lookahead_NAME``; its momentum is 0.9.

    ``params``: parameters, or groups that are used as they are. Raises ConfigError for a name that timm does
    not have, whose package is not installed, or that needs second derivatives.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = list_optimizers()
    wanted = name.lower()
    if wanted.removeprefix("lookahead_") not in names:
        near = difflib.get_close_matches(wanted, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(names)}"
        raise ConfigError(f"optim.name: timm has no optimizer '{name}'; {hint}")
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            params, opt=wanted, lr=lr, weight_decay=weight_decay
        )
    except (AssertionError, ImportError) as error:
        raise ConfigError(
            f"optim.name: '{name}' cannot be used here ({error}); choose another name"
        ) from error
    if getattr(optimizer, "is_second_order", False):
        raise ConfigError(
            f"optim.name: '{name}' needs second derivatives, which training does not compute"
        )
    return optimizer
