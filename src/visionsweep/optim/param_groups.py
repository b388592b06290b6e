"""Parameter groups: the weight decay and lr of each parameter, one rule for all optimizers.

An optimizer of your own is any torch Optimizer, or a function that returns one. ``build`` passes
``params``, the groups that ``param_groups`` returns (each with its own lr and weight decay),
besides the keys of its YAML, ``lr`` and ``weight_decay`` among them; ``layer_decay`` is used here
and not passed on.
"""

import fnmatch
import math
from collections.abc import Collection
from typing import Any

from torch import nn

from visionsweep.errors import ConfigError


def param_groups(
    model: nn.Module, *, weight_decay: float, lr: float, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Return the optimizer's groups: {"params", "weight_decay", "lr"}, by first appearance.

    Biases, norms (anything of at most one dimension) and names that the model's own
    ``no_weight_decay()`` lists do not decay. ``layer_decay`` d in (0, 1]: a parameter of layer i of
    L has the lr ``lr * d^(L - i)``, the head has ``lr`` (BEiT, arXiv 2106.08254, by timm's order of
    layers). Every parameter that requires a gradient is in one group. Raises ConfigError for a
    number out of range, and for a layer_decay if the model does not name its layers.
    """
    if not 0 < lr < math.inf:
        raise ConfigError(f"optim.lr: expected a finite number > 0, got {lr}")
    if not 0 <= weight_decay < math.inf:
        raise ConfigError(f"optim.weight_decay: expected a finite number >= 0, got {weight_decay}")
    undecayed = _undecayed_names(model)
    if layer_decay is not None:
        return _layer_groups(
            model, undecayed, weight_decay=weight_decay, lr=lr, layer_decay=layer_decay
        )
    groups: dict[float, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name in undecayed else weight_decay
            group = groups.setdefault(decay, {"params": [], "weight_decay": decay, "lr": lr})
            group["params"].append(parameter)
    return list(groups.values())


def _undecayed_names(model: nn.Module) -> set[str]:
    """Return the names without decay; ``no_weight_decay()`` may list wildcards, as in timm."""
    patterns: Collection[str] = getattr(model, "no_weight_decay", tuple)()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim <= 1
        or name.rpartition(".")[2] == "bias"
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def _layer_groups(
    model: nn.Module, undecayed: set[str], *, weight_decay: float, lr: float, layer_decay: float
) -> list[dict[str, Any]]:
    if not 0 < layer_decay <= 1:
        raise ConfigError(
            "optim.layer_decay: expected null or a number in (0, 1], such as 0.75, "
            f"got {layer_decay}"
        )
    if not hasattr(model, "group_matcher"):
        raise ConfigError(
            f"optim.layer_decay: got {layer_decay}, but {type(model).__name__} does not name its "
            "layers (timm's models do); set optim.layer_decay=null or model=timm"
        )
    from timm.optim import param_groups_layer_decay

    # With the names given, timm's own rule for weight decay plays no part.
    groups = param_groups_layer_decay(
        model, weight_decay=weight_decay, layer_decay=layer_decay, no_weight_decay_list=undecayed
    )
    return [
        {
            "params": group["params"],
            "weight_decay": group["weight_decay"],
            "lr": lr * group["lr_scale"],
        }
        for group in groups
    ]
