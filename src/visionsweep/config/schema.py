"""The types of the top-level keys. The values are in conf/, each with a comment.

Component groups (model, loss, optim, scheduler, data, augment) are plain YAML with a `_target_`;
`visionsweep.config.build` checks them against its signature. Importing this module registers the
schema, the resolver that gives a sweeper its direction, and those of `suitable`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

import visionsweep.config.suitable  # noqa: F401 - registers its resolvers
from visionsweep.errors import ConfigError

ALL_FOLDS = "all"  # as split.fold: one run per fold, one after another


@dataclass
class ObjectiveConfig:
    """What best checkpoint, early stopping, plateau scheduler and sweep optimize."""

    metric: str = MISSING
    direction: Literal["maximize", "minimize"] = MISSING
    others: dict[str, str] = MISSING  # further objectives of a sweep: name -> direction


@dataclass
class MetricsConfig:
    """How metrics are computed."""

    absent_classes: Literal["zero", "skip"] = MISSING


@dataclass
class SplitConfig:
    """How the validation images are split from the training images."""

    val_fraction: float = MISSING
    fold: int | str | None = MISSING  # a number, or ALL_FOLDS
    num_folds: int = MISSING


@dataclass
class EarlyStoppingConfig:
    """When to stop a run that no longer improves."""

    patience: int | None = MISSING
    min_delta: float = MISSING


@dataclass
class TrainerConfig:
    """How to train: conf/trainer/ explains each key."""

    epochs: int = MISSING
    batch_size: int = MISSING
    accumulate: int = MISSING
    eval_batch_size: int | None = MISSING
    image_sizes: list[Any] | None = MISSING
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = MISSING
    clip_norm: float | None = MISSING
    ema: float | None = MISSING
    swa: int | None = MISSING
    checkpoint: Literal["best", "last"] = MISSING
    early_stopping: EarlyStoppingConfig = MISSING
    sampler: Literal["shuffled", "balanced"] = MISSING
    deterministic: bool = MISSING
    compile: bool = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    memory_format: Literal["auto", "contiguous", "channels_last"] = MISSING


@dataclass
class TrackingConfig:
    """What is sent to MLflow."""

    enabled: bool = MISSING
    uri: str | None = MISSING
    experiment: str = MISSING
    wait_seconds: float = MISSING
    checkpoints: Literal["best", "all", "none"] = MISSING
    register: str | None = MISSING
    system_metrics: float | None = MISSING


@dataclass
class Config:
    """One run."""

    model: Any = MISSING
    loss: Any = MISSING
    optim: Any = MISSING
    scheduler: Any = MISSING
    data: Any = MISSING
    augment: Any = MISSING
    trainer: TrainerConfig = MISSING
    tracking: TrackingConfig = MISSING
    objective: ObjectiveConfig = MISSING
    metrics: MetricsConfig = MISSING
    split: SplitConfig = MISSING
    seed: int = MISSING
    name: str = MISSING
    study: str = MISSING
    resume: str | None = MISSING


def all_folds_in_a_sweep() -> ConfigError:
    """Return the error of `split.fold=all` in a sweep."""
    return ConfigError(
        f"split.fold={ALL_FOLDS}: trains the folds of a single run; in a sweep, set "
        "hydra.sweeper.folds=5"
    )


def directions(direction: str, others: Mapping[str, str]) -> str | list[str]:
    """Return `hydra.sweeper.direction`: a direction, or with other objectives a list of all."""
    return [direction, *others.values()] if others else direction


def _schema() -> Any:
    schema = OmegaConf.structured(Config(objective=ObjectiveConfig(others={})))
    # Any metric may be a key: objective.others={val/loss: minimize} needs no `+`.
    OmegaConf.set_struct(schema.objective.others, False)
    return schema


ConfigStore.instance().store(name="visionsweep_schema", node=_schema())
# ${visionsweep.directions:${objective.direction},${objective.others}}
OmegaConf.register_resolver("visionsweep.directions", directions, replace=True)
