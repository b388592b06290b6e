"""Checks of settings that need other settings, the data or the model; made before a run writes."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from visionsweep.config.schema import Config, ObjectiveConfig, TrainerConfig
from visionsweep.data.batches import TrainBatches
from visionsweep.data.dataset import ImageDataset
from visionsweep.data.labels import check_labels
from visionsweep.errors import ConfigError
from visionsweep.losses.base import Loss
from visionsweep.losses.ce_f1 import CrossEntropyF1Loss
from visionsweep.losses.f1 import SoftF1Loss
from visionsweep.rundir.result import NUM_PARAMETERS
from visionsweep.text import first_line
from visionsweep.training.devices import unsafe_bf16_convolutions
from visionsweep.training.metrics import CLASS_F1_PREFIX, METRIC_DIRECTIONS
from visionsweep.training.reproducibility import untouched

# With fewer, `loss=f1` alone is the worst of all losses: on photographs of clothing, updates of 32,
# macro F1 0.538 where cross-entropy has 0.729.
MIN_IMAGES_OF_RAREST_CLASS = 5

# With 200 validation images the best epoch's F1 was 0.011 too high; with 90, choosing an epoch cost
# 0.030 [-0.020, 0.080] of F1 on a test set.
FEW_VAL_IMAGES = 250


def check_settings(config: Config) -> None:
    """Raise `ConfigError` for a seed or trainer setting that is out of range."""
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed: expected 0 or more and less than 2^63, got {config.seed}")
    _check_trainer(config.trainer)


def _check_trainer(trainer: TrainerConfig) -> None:
    for key in ("epochs", "batch_size", "accumulate", "eval_batch_size"):
        value = getattr(trainer, key)
        if value is not None and value < 1:
            raise ConfigError(f"trainer.{key}: expected at least 1, got {value}")
    if trainer.clip_norm is not None and trainer.clip_norm <= 0:
        raise ConfigError(
            f"trainer.clip_norm: expected a positive number or null (off), got {trainer.clip_norm}"
        )
    if trainer.ema is not None and not 0 < trainer.ema < 1:
        raise ConfigError(
            f"trainer.ema: expected a decay in (0, 1) or null (off), got {trainer.ema}"
        )
    if trainer.swa is not None and trainer.ema is not None:
        raise ConfigError("trainer.swa: both trainer.swa and trainer.ema average; set one to null")
    if trainer.swa is not None and not 1 <= trainer.swa <= trainer.epochs:
        raise ConfigError(
            f"trainer.swa: expected 1 to {trainer.epochs} epochs (trainer.epochs) or null (off), "
            f"got {trainer.swa}"
        )
    patience, min_delta = trainer.early_stopping.patience, trainer.early_stopping.min_delta
    if patience is not None and patience < 1:
        raise ConfigError(
            "trainer.early_stopping.patience: expected at least 1 epoch or null (off), "
            f"got {patience}"
        )
    if min_delta < 0:
        raise ConfigError(f"trainer.early_stopping.min_delta: expected 0 or more, got {min_delta}")


def validation_warning(trainer: TrainerConfig, num_val_images: int) -> str | None:
    """Return a warning if the epoch is chosen on few validation images: the luckiest one wins."""
    chooses = trainer.checkpoint == "best" and trainer.epochs > 1
    if not chooses or num_val_images >= FEW_VAL_IMAGES:
        return None
    return (
        f"{num_val_images} validation images are few to choose the best epoch by: it looks better "
        "than it is. trainer.checkpoint=last keeps the last epoch; with trainer.swa=3 an average"
    )


def check_data(dataset: ImageDataset, num_train_images: int, batch_size: int) -> None:
    """Raise `DataError` for wrong labels, `ConfigError` for batches larger than the data set."""
    check_labels(dataset.train.targets, dataset.num_classes, "train")
    if dataset.test is not None:
        check_labels(dataset.test.targets, dataset.num_classes, "test")
    if batch_size > num_train_images:
        raise ConfigError(
            f"trainer.batch_size: {batch_size} is more than the {num_train_images:,} training "
            f"images of {dataset.name}; set it to {num_train_images} or less"
        )


def check_objective(objective: ObjectiveConfig, absent_classes: str, dataset: ImageDataset) -> None:
    """Raise `ConfigError` unless each objective is a validation metric with its own direction."""
    known: dict[str, str] = {f"val/{name}": way for name, way in METRIC_DIRECTIONS.items()}
    known |= {f"val/{CLASS_F1_PREFIX}{name}": "maximize" for name in dataset.class_names}
    if dataset.num_classes <= 5:
        del known["val/top5_accuracy"]

    def check(metric: str, direction: str, metric_key: str, direction_key: str) -> None:
        if metric not in known:
            hint = "the test split is never an objective; " if metric.startswith("test/") else ""
            names = ", ".join(name for name in known if CLASS_F1_PREFIX not in name)
            more = "" if metric_key == "objective.metric" else f", {NUM_PARAMETERS}"
            raise ConfigError(
                f"{metric_key}: no metric '{metric}'; {hint}choose one of {names}, "
                f"val/{CLASS_F1_PREFIX}CLASS{more}"
            )
        if CLASS_F1_PREFIX in metric and absent_classes == "skip":
            raise ConfigError(
                f"{metric_key}: {metric} may be missing with metrics.absent_classes=skip; "
                "set metrics.absent_classes=zero"
            )
        if direction != known[metric]:
            raise ConfigError(
                f"{direction_key}: expected {known[metric]} for {metric}, got {direction}"
            )

    check(objective.metric, objective.direction, "objective.metric", "objective.direction")
    for name, direction in objective.others.items():
        key = f"objective.others.{name}"
        if name == objective.metric:
            raise ConfigError(f"{key}: is the objective.metric already; remove it")
        if name != NUM_PARAMETERS:
            check(name, direction, key, key)
        elif direction not in ("maximize", "minimize"):
            raise ConfigError(f"{key}: expected maximize or minimize, got {direction}")


def check_loss(loss: object) -> None:
    """Raise `ConfigError` for a loss that exact accumulation cannot use."""
    if not isinstance(loss, Loss):
        raise ConfigError(
            f"loss._target_: {type(loss).__name__} is not a visionsweep Loss (one value and one "
            "weight per sample); derive it from visionsweep.losses.base.SampleLoss"
        )


def mistakes(loss: Loss, train: TrainBatches, class_counts: torch.Tensor) -> list[str]:
    """Return warnings about settings that are legal but probably mistakes."""
    warnings = []
    corrections = loss.corrections() + ["trainer.sampler=balanced"] * train.balanced
    if len(corrections) > 1:
        warnings.append(f"{' and '.join(corrections)} correct for rare classes twice; choose one")
    accumulate, batches = train.accumulate, -(-train.num_images // train.batch_size)
    if accumulate > batches:
        warnings.append(
            f"trainer.accumulate={accumulate}: an epoch has only {batches} micro-batches"
        )
    is_f1_alone = isinstance(loss, SoftF1Loss) or (
        isinstance(loss, CrossEntropyF1Loss) and loss.ce_weight == 0
    )
    rarest = _images_of_rarest_class(train, class_counts)
    if is_f1_alone and rarest < MIN_IMAGES_OF_RAREST_CLASS:
        needed = math.ceil(train.images_per_update * MIN_IMAGES_OF_RAREST_CLASS / rarest)
        warnings.append(
            f"loss: soft F1 alone, but an update of {train.images_per_update} images has only "
            f"{rarest:.1f} of the rarest class on average, too few to estimate its F1; use "
            f"loss=ce_f1, or {needed:,} images per update (raise trainer.accumulate)"
        )
    return warnings


def _images_of_rarest_class(train: TrainBatches, class_counts: torch.Tensor) -> float:
    """Return how many images of the rarest class an update has on average."""
    present = class_counts[class_counts > 0]
    share = 1 / len(present) if train.balanced else float(present.min() / present.sum())
    return train.images_per_update * share


@dataclass(frozen=True)
class ForwardPass:
    """What a model's forward pass is made of."""

    unsafe_bf16: list[str]  # convolutions that bf16 cannot train on a CPU
    flops: int  # floating-point operations per image


def check_model(model: nn.Module, train: TrainBatches, dataset: ImageDataset) -> ForwardPass:
    """Raise `ConfigError` for a model that cannot take the images, in all sizes of the schedule."""
    full_size = dataset.preprocessing.image_size
    forward = _check_size(model, train, dataset, full_size)
    for size in set(train.sizes.sizes if train.sizes is not None else ()) - {full_size}:
        try:
            smaller = _check_size(model, train, dataset, size)
        except ConfigError as error:
            raise ConfigError(
                f"trainer.image_sizes: this model does not take images of {size[1]}x{size[0]} "
                "pixels; choose one for all sizes, such as a convolutional network of timm, or "
                f"set trainer.image_sizes=null ({first_line(error.__cause__ or error)})"
            ) from error
        forward = ForwardPass(forward.unsafe_bf16 + smaller.unsafe_bf16, forward.flops)
    return forward


def _check_size(
    model: nn.Module, train: TrainBatches, dataset: ImageDataset, size: tuple[int, int]
) -> ForwardPass:
    """Raise `ConfigError` for a model that cannot take the smallest batch or has other outputs.

    Leaves no trace in the model or the random generators.
    """
    height, width = size
    shape = (train.smallest_batch, dataset.preprocessing.channels, height, width)
    images = torch.zeros(shape, device=train.device)
    try:
        counter = FlopCounterMode(display=False)
        with (
            untouched(model, train.device),
            torch.no_grad(),
            unsafe_bf16_convolutions() as unsafe,
            counter,
        ):
            logits = model.train()(images.contiguous(memory_format=train.memory_format))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"model: cannot train on {train.smallest_batch} images of {width}x{height} pixels at "
            f"once ({first_line(error)}); raise data.image_size or trainer.batch_size, or choose "
            "another model"
        ) from error
    expected = (train.smallest_batch, dataset.num_classes)
    is_tensor = isinstance(logits, torch.Tensor)
    if not is_tensor or logits.shape != expected:
        got = tuple(logits.shape) if is_tensor else type(logits).__name__
        raise ConfigError(f"model: expected logits of shape {expected}, got {got}")
    return ForwardPass(unsafe, counter.get_total_flops() // train.smallest_batch)
