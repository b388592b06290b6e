"""The settings of transfer learning: which part of the model is frozen, how long, and its cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionsweep.config.schema import TrainerConfig
from visionsweep.errors import ConfigError
from visionsweep.models.freezing import TRANSFER_KEYS, Frozen


@dataclass(frozen=True)
class Transfer:
    """Settings of the config group `model` that its class does not see; conf/model/timm.yaml."""

    freeze: Frozen
    unfreeze_epoch: int | None  # the first epoch in which everything trains
    unfreeze_lr: float | None
    cache_features: bool
    feature_views: int
    standardize: bool
    keep_batch_norm: bool

    @property
    def is_frozen(self) -> bool:
        """Whether the run starts with a frozen part."""
        return self.freeze != "none"

    @property
    def wants_features(self) -> bool:
        """Whether the head trains on cached features."""
        return self.freeze == "backbone" and self.cache_features

    def frozen_epochs(self, epochs: int) -> int:
        """Return how many of the run's epochs train with a frozen part."""
        if not self.is_frozen:
            return 0
        return epochs if self.unfreeze_epoch is None else self.unfreeze_epoch - 1


def read_transfer(node: Mapping[str, Any], trainer: TrainerConfig) -> Transfer:
    """Return the settings in a model's config. Raises `ConfigError` for a wrong value."""
    epochs = trainer.epochs
    freeze = node.get("freeze", "none")
    if freeze not in ("none", "backbone") and not _is_count(freeze, at_least=1):
        raise ConfigError(
            f"model.freeze: expected none, backbone or a number of stages, got {freeze!r}"
        )
    unfreeze_epoch, unfreeze_lr = node.get("unfreeze_epoch"), node.get("unfreeze_lr")
    if unfreeze_epoch is not None:
        if freeze == "none":
            raise ConfigError(
                f"model.unfreeze_epoch: got {unfreeze_epoch}, but nothing is frozen; set "
                "model.freeze=backbone or a number of stages"
            )
        if not _is_count(unfreeze_epoch, at_least=2) or unfreeze_epoch > epochs:
            raise ConfigError(
                "model.unfreeze_epoch: expected null or the first epoch that trains everything, "
                f"2 to {epochs} (trainer.epochs), got {unfreeze_epoch!r}"
            )
        left = epochs - unfreeze_epoch + 1
        if trainer.swa is not None and trainer.swa > left:
            raise ConfigError(
                f"trainer.swa: expected at most {left}, the epochs from model.unfreeze_epoch on, "
                f"got {trainer.swa}"
            )
    if unfreeze_lr is not None:
        if unfreeze_epoch is None:
            raise ConfigError(
                f"model.unfreeze_lr: got {unfreeze_lr}, but model.unfreeze_epoch is null"
            )
        if isinstance(unfreeze_lr, bool) or not isinstance(unfreeze_lr, int | float):
            raise ConfigError(f"model.unfreeze_lr: expected a number or null, got {unfreeze_lr!r}")
    views = node.get("feature_views", 0)
    if not _is_count(views, at_least=0):
        raise ConfigError(
            "model.feature_views: expected the number of augmented views of each image, or 0 "
            f"(images as they are), got {views!r}"
        )
    return Transfer(
        freeze=freeze,
        unfreeze_epoch=unfreeze_epoch,
        unfreeze_lr=unfreeze_lr,
        cache_features=_switch(node, "cache_features"),
        feature_views=views,
        standardize=_switch(node, "standardize"),
        keep_batch_norm=_switch(node, "keep_batch_norm"),
    )


def without_transfer(node: Any) -> Any:
    """Return a model's config as its class sees it."""
    if not isinstance(node, Mapping):
        return node
    return {key: value for key, value in node.items() if key not in TRANSFER_KEYS}


def _is_count(value: Any, *, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _switch(node: Mapping[str, Any], key: str) -> bool:
    value = node.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"model.{key}: expected true or false, got {value!r}")
    return value
