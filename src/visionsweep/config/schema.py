"""The schema of the top-level keys: types only. The values stand in conf/, beside a comment each.

Component groups (model, loss, optim, scheduler, data, augment) are plain YAML with a `_target_`, checked by
`visionsweep.config.build` against the signature of what they name. Importing this module registers the schema, and the
resolver that turns `objective` into the direction that a sweeper takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf


@dataclass
class ObjectiveConfig:
    """What "better" means, for the best checkpoint, early stopping, the plateau scheduler and the sweep."""

    metric: str = MISSING
    direction: Literal["maximize", "minimize"] = MISSING
    others: dict[str, str] = MISSING  # more objectives of a sweep: name -> direction


@dataclass
class MetricsConfig:
    """How metrics are computed."""

    absent_classes: Literal["zero", "skip"] = MISSING


@dataclass
class SplitConfig:
    """How validation images are cut from the training images."""

    val_fraction: float = MISSING
    fold: int | None = MISSING
    num_folds: int = MISSING


@dataclass
class EarlyStoppingConfig:
    """When to end a run that no longer gets better."""

    patience: int | None = MISSING
    min_delta: float = MISSING


@dataclass
class TrainerConfig:
    """How to train: conf/trainer/ explains each key."""

    epochs: int = MISSING
    batch_size: int = MISSING
    accumulate: int = MISSING
    eval_batch_size: int | None = MISSING
    precision: Literal["auto", "fp32", "bf16", "fp16"] = MISSING
    clip_norm: float | None = MISSING
    ema: float | None = MISSING
    early_stopping: EarlyStoppingConfig = MISSING
    sampler: Literal["shuffled", "balanced"] = MISSING
    deterministic: bool = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    memory_format: Literal["auto", "contiguous", "channels_last"] = MISSING


@dataclass
class TrackingConfig:
    """Where the record goes besides the run's directory."""

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


def directions(direction: str, others: Mapping[str, str]) -> str | list[str]:
    """Return what `hydra.sweeper.direction` takes: the one direction, or with other objectives the list of all."""
    return [direction, *others.values()] if others else direction


def _schema() -> Any:
    schema = OmegaConf.structured(Config(objective=ObjectiveConfig(others={})))
    # Its keys are names of metrics: objective.others={val/loss: minimize} needs no `+`.
    OmegaConf.set_struct(schema.objective.others, False)
    return schema


ConfigStore.instance().store(name="visionsweep_schema", node=_schema())
# ${visionsweep.directions:${objective.direction},${objective.others}}
OmegaConf.register_resolver("visionsweep.directions", directions, replace=True)
