"""Freezing: which part of a model trains, by timm's own order of layers.

A frozen part keeps its parameters and, since it stays in evaluation mode, BatchNorm's running
statistics. Any module can be frozen that has timm's ``get_classifier()`` (for the backbone) or
``group_matcher()`` (for stages).
"""

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn

from visionsweep.errors import ConfigError

# Keys of a model's config that are ours: its class does not see them.
TRANSFER_KEYS = (
    "freeze",
    "unfreeze_epoch",
    "unfreeze_lr",
    "cache_features",
    "feature_views",
    "standardize",
    "keep_batch_norm",
)

Frozen = int | Literal["none", "backbone"]  # a number: the first stages, 1 is the stem


def freeze(model: nn.Module, part: Frozen) -> str:
    """Stop the training of a part of the model; return what was frozen, for the log.

    Raises `ConfigError` if the model does not name the part, or has fewer stages.
    """
    if part == "none":
        return "nothing"
    names = _backbone(model) if part == "backbone" else _stages(model, part)
    total = num_frozen = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        if name in names:
            parameter.requires_grad_(False)
            num_frozen += parameter.numel()
    what = "the backbone" if part == "backbone" else f"{part} of {num_stages(model)} stages"
    return f"{what} ({_layers(names)}), {num_frozen:,} of {total:,} parameters"


def train_mode(model: nn.Module, *, keep_batch_norm: bool = False) -> None:
    """Put the model in training mode, but its frozen parts in evaluation mode.

    ``keep_batch_norm``: also every BatchNorm, whose weights still train.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        is_frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
        if is_frozen or (keep_batch_norm and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            module.eval()


def find_classifier(model: nn.Module) -> tuple[str, nn.Module]:
    """Return name and module of the last layer. Raises `ConfigError` unless there is one."""
    get_classifier: Any = getattr(model, "get_classifier", lambda: None)
    classifier = get_classifier()
    for name, module in model.named_modules():
        if name and module is classifier:
            return name, module
    raise ConfigError(
        f"model.freeze: {type(model).__name__} has no single last layer (get_classifier, as most "
        "of timm's models have); freeze a number of stages, or set model.freeze=none"
    )


def num_stages(model: nn.Module) -> int:
    """Return how many stages can be frozen: all but the one with the head."""
    return max(_stage_of(model).values())


def _backbone(model: nn.Module) -> set[str]:
    name, _ = find_classifier(model)
    return {key for key, _ in model.named_parameters() if not key.startswith(f"{name}.")}


def _stages(model: nn.Module, number: int) -> set[str]:
    stage_of, most = _stage_of(model), num_stages(model)
    if not 1 <= number <= most:
        raise ConfigError(
            f"model.freeze: expected none, backbone or 1 to {most} stages of this model, "
            f"got {number}"
        )
    return {name for name, stage in stage_of.items() if stage < number}


def _stage_of(model: nn.Module) -> dict[str, int]:
    """Return the stage of each parameter, from 0 (the stem)."""
    group_matcher: Any = getattr(model, "group_matcher", None)
    if group_matcher is None:
        raise ConfigError(
            f"model.freeze: {type(model).__name__} does not name its stages (group_matcher, as "
            "timm's models have); set model.freeze=none or backbone"
        )
    from timm.models import group_parameters

    matcher = group_matcher(coarse=True)
    stages: dict[str, int] = group_parameters(model, matcher, reverse=True)
    return stages


def _layers(names: Iterable[str]) -> str:
    first = dict.fromkeys(name.partition(".")[0] for name in names)
    return ", ".join(sorted(first)[:6]) + (", ..." if len(first) > 6 else "")
