"""From a resolved config to the objects of one run: data, batches, model, loss, optimizer, scheduler.

Every check of a setting that needs another setting or the data happens here, before anything is written.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from visionsweep.config.build import build, require_number
from visionsweep.data.batches import (
    EvalBatches,
    Normalization,
    Placement,
    TrainBatches,
    move_if_it_fits,
)
from visionsweep.data.dataset import ImageDataset
from visionsweep.data.labels import check_labels
from visionsweep.data.memo import remembered
from visionsweep.data.splits import split_indices
from visionsweep.errors import ConfigError
from visionsweep.losses.base import Loss
from visionsweep.optim.param_groups import param_groups
from visionsweep.rundir.result import NUM_PARAMETERS
from visionsweep.text import first_line
from visionsweep.training.devices import (
    choose_device,
    choose_memory_format,
    choose_precision,
    choose_threads,
)
from visionsweep.training.ema import EMA
from visionsweep.training.loop import Settings, TrainState
from visionsweep.training.metrics import METRIC_DIRECTIONS
from visionsweep.training.reproducibility import (
    restore_torch_rng_states,
    seed_everything,
    set_deterministic,
    torch_rng_states,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """Everything that `fit` needs, and what a checkpoint needs to be used without the config."""

    dataset: ImageDataset
    train_indices: np.ndarray
    val_indices: np.ndarray
    train: TrainBatches
    val: EvalBatches
    test: EvalBatches | None
    state: TrainState
    settings: Settings
    inference: dict[str, Any]


def assemble(config: dict[str, Any], *, keep_dataset: bool = False) -> Experiment:
    """Build one run from its resolved config (plain containers). Raises `ConfigError` or `DataError`.

    ``keep_dataset``: share the dataset with the other runs of this process, as a sweep's worker does.
    """
    trainer = config["trainer"]
    _check_trainer(trainer)
    if not 0 <= config["seed"] < 2**63:
        raise ConfigError(f"seed: expected a whole number from 0 up to 2^63, got {config['seed']}")
    device, precision, memory_format = _prepare_machine(trainer)
    dataset = _dataset(config["data"], keep_dataset)
    train_indices, val_indices = split_indices(
        dataset.train.targets.numpy(),
        dataset.train.groups,
        seed=config["seed"],
        class_names=dataset.class_names,
        **config["split"],
    )
    _check_data(dataset, train_indices, trainer)
    _check_objective(config["objective"], config["metrics"]["absent_classes"], dataset)

    seed_everything(
        config["seed"]
    )  # after the dataset: whether it had to be built makes no difference from here on
    model = build(
        config["model"],
        "model",
        num_classes=dataset.num_classes,
        in_channels=dataset.preprocessing.channels,
        in_chans=dataset.preprocessing.channels,
        image_size=dataset.preprocessing.image_size,
    )
    train_rows = torch.from_numpy(train_indices)
    normalization = _normalization(config["model"], model, dataset, train_rows)
    model = model.to(device, memory_format=memory_format)
    placement = Placement(normalization, device, memory_format)
    images = move_if_it_fits(dataset.train.images, device)
    train = TrainBatches(
        images,
        dataset.train.targets,
        trainer["batch_size"],
        placement,
        indices=train_rows,
        augment=build(
            config["augment"], "augment", num_classes=dataset.num_classes, flips=dataset.flips
        ),
        seed=config["seed"],
        balanced=trainer["sampler"] == "balanced",
    )
    _try_model(model, train, dataset)
    state = _state(config, model, dataset, train, device, precision)
    eval_size = trainer["eval_batch_size"] or 4 * trainer["batch_size"]
    val_rows = torch.from_numpy(val_indices)
    return Experiment(
        dataset=dataset,
        train_indices=train_indices,
        val_indices=val_indices,
        train=train,
        val=EvalBatches(images, dataset.train.targets, eval_size, placement, indices=val_rows),
        test=_test_batches(dataset, eval_size, placement),
        state=state,
        settings=_settings(config, dataset, device, precision),
        inference=_inference(dataset, normalization),
    )


def _dataset(node: dict[str, Any], keep: bool) -> ImageDataset:
    def load() -> ImageDataset:
        dataset: ImageDataset = build(node, "data")
        return dataset

    return remembered(node, load) if keep else load()


def _test_batches(
    dataset: ImageDataset, batch_size: int, placement: Placement
) -> EvalBatches | None:
    if dataset.test is None:
        return None
    images = move_if_it_fits(dataset.test.images, placement.device)
    return EvalBatches(
        images, dataset.test.targets, batch_size, placement, indices=torch.arange(len(dataset.test))
    )


def _settings(
    config: dict[str, Any], dataset: ImageDataset, device: torch.device, precision: Any
) -> Settings:
    return Settings(
        epochs=config["trainer"]["epochs"],
        accumulate=config["trainer"]["accumulate"],
        clip_norm=config["trainer"]["clip_norm"],
        precision=precision,
        device=device,
        class_names=dataset.class_names,
        absent_classes=config["metrics"]["absent_classes"],
        objective=config["objective"]["metric"],
    )


def _try_model(model: torch.nn.Module, train: TrainBatches, dataset: ImageDataset) -> None:
    """Refuse a model that cannot take such images, or so few at once; leaves no trace in it or in the generators."""
    height, width = dataset.preprocessing.image_size
    shape = (train.smallest_batch, dataset.preprocessing.channels, height, width)
    images = torch.zeros(shape, device=train.device)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    rng = torch_rng_states(train.device)
    try:
        with torch.no_grad():
            logits = model.train()(images.contiguous(memory_format=train.memory_format))
            for buffer, before in buffers:
                buffer.copy_(before)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = first_line(error)
        raise ConfigError(
            f"model: cannot train on {train.smallest_batch} images of {width}x{height} pixels at once ({reason}); "
            "raise data.image_size or trainer.batch_size, or choose another model"
        ) from error
    restore_torch_rng_states(rng, train.device)
    expected = (train.smallest_batch, dataset.num_classes)
    if not isinstance(logits, torch.Tensor) or logits.shape != expected:
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"model: expected logits of shape {expected}, got {found}")


def _check_trainer(trainer: dict[str, Any]) -> None:
    for key in ("epochs", "batch_size", "accumulate", "eval_batch_size"):
        value = trainer[key]
        if value is not None and value < 1:
            raise ConfigError(f"trainer.{key}: expected a whole number from 1 up, got {value}")
    if trainer["clip_norm"] is not None and trainer["clip_norm"] <= 0:
        raise ConfigError(
            f"trainer.clip_norm: expected a positive number or null (off), got {trainer['clip_norm']}"
        )
    if trainer["ema"] is not None and not 0 < trainer["ema"] < 1:
        raise ConfigError(
            f"trainer.ema: expected a decay in (0, 1) or null (off), got {trainer['ema']}"
        )
    patience, min_delta = (
        trainer["early_stopping"]["patience"],
        trainer["early_stopping"]["min_delta"],
    )
    if patience is not None and patience < 1:
        raise ConfigError(
            f"trainer.early_stopping.patience: expected epochs from 1 up or null (off), got {patience}"
        )
    if min_delta < 0:
        raise ConfigError(
            f"trainer.early_stopping.min_delta: expected a number from 0 up, got {min_delta}"
        )


def _prepare_machine(trainer: dict[str, Any]) -> tuple[torch.device, Any, torch.memory_format]:
    name, device_reason = choose_device(trainer["device"])
    device = torch.device(name)
    threads, threads_reason = choose_threads(trainer["threads"])
    precision, precision_reason = choose_precision(trainer["precision"], device)
    memory_format, (format_name, format_reason) = choose_memory_format(
        trainer["memory_format"], device
    )
    log.info(
        "device=%s (%s)  threads=%d (%s)  precision=%s (%s)  memory_format=%s (%s)",
        name,
        device_reason,
        threads,
        threads_reason,
        precision,
        precision_reason,
        format_name,
        format_reason,
    )
    torch.set_num_threads(threads)
    set_deterministic(trainer["deterministic"])
    return device, precision, memory_format


def _check_data(dataset: ImageDataset, train_indices: np.ndarray, trainer: dict[str, Any]) -> None:
    check_labels(dataset.train.targets, dataset.num_classes, "train")
    if dataset.test is not None:
        check_labels(dataset.test.targets, dataset.num_classes, "test")
    if trainer["batch_size"] > len(train_indices):
        raise ConfigError(
            f"trainer.batch_size: {trainer['batch_size']} is more than the {len(train_indices):,} training images "
            f"of {dataset.name}; set it to {len(train_indices)} or less"
        )


def _check_objective(objective: dict[str, Any], absent_classes: str, dataset: ImageDataset) -> None:
    known: dict[str, str] = {f"val/{name}": way for name, way in METRIC_DIRECTIONS.items()}
    known |= {f"val/f1_class/{name}": "maximize" for name in dataset.class_names}
    if dataset.num_classes <= 5:
        del known["val/top5_accuracy"]
    metric = objective["metric"]
    _check_metric(
        metric,
        objective["direction"],
        known,
        ("objective.metric", "objective.direction"),
        absent_classes,
    )
    for name, direction in objective["others"].items():
        key = f"objective.others.{name}"
        if name == metric:
            raise ConfigError(f"{key}: is objective.metric already; leave it out")
        if name != NUM_PARAMETERS:
            _check_metric(name, direction, known, (key, key), absent_classes)
        elif direction not in ("maximize", "minimize"):
            raise ConfigError(f"{key}: expected maximize or minimize, got {direction}")


def _check_metric(
    metric: str, direction: str, known: dict[str, str], keys: tuple[str, str], absent_classes: str
) -> None:
    """``keys``: the settings that gave the metric and its direction."""
    if metric not in known:
        hint = "the test split is never an objective; " if metric.startswith("test/") else ""
        names = ", ".join(name for name in known if "/f1_class/" not in name)
        more = "" if keys[0] == "objective.metric" else f" or {NUM_PARAMETERS}"
        raise ConfigError(
            f"{keys[0]}: no metric '{metric}'; {hint}choose one of {names}, val/f1_class/CLASS{more}"
        )
    if "/f1_class/" in metric and absent_classes == "skip":
        raise ConfigError(
            f"{keys[0]}: {metric} may be missing with metrics.absent_classes=skip; set metrics.absent_classes=zero"
        )
    if direction != known[metric]:
        raise ConfigError(f"{keys[1]}: {metric} is to {known[metric]}, got {direction}")


def _normalization(
    node: dict[str, Any], model: torch.nn.Module, dataset: ImageDataset, indices: torch.Tensor
) -> Normalization:
    pretrained_cfg = getattr(model, "pretrained_cfg", None)
    if (
        node.get("pretrained")
        and pretrained_cfg
        and len(pretrained_cfg["mean"]) == dataset.preprocessing.channels
    ):
        log.info("normalization: mean and std that the pretrained weights were trained with")
        return Normalization(tuple(pretrained_cfg["mean"]), tuple(pretrained_cfg["std"]))
    return Normalization.of(dataset.train.images, indices)


def _state(
    config: dict[str, Any],
    model: torch.nn.Module,
    dataset: ImageDataset,
    train: TrainBatches,
    device: torch.device,
    precision: str,
) -> TrainState:
    trainer = config["trainer"]
    counts = torch.bincount(dataset.train.targets[train.indices], minlength=dataset.num_classes)
    loss = build(config["loss"], "loss", class_counts=counts, num_classes=dataset.num_classes)
    if not isinstance(loss, Loss):
        raise ConfigError(
            f"loss._target_: {type(loss).__name__} is no visionsweep Loss (one value and one weight a sample); "
            "derive it from visionsweep.losses.base.SampleLoss"
        )
    if train.balanced and config["loss"].get("class_weights", "none") != "none":
        log.warning(
            "trainer.sampler=balanced and class weights both correct for rare classes: twice is too much"
        )
    optimizer = build_optimizer(config["optim"], model)
    updates_per_epoch = -(-len(train) // trainer["accumulate"])
    scheduler = build(
        config["scheduler"],
        "scheduler",
        optimizer=optimizer,
        total_updates=trainer["epochs"] * updates_per_epoch,
        updates_per_epoch=updates_per_epoch,
        direction=config["objective"]["direction"],
    )
    if trainer["accumulate"] > len(train):
        log.warning(
            "trainer.accumulate=%d: an epoch has %d micro-batches only",
            trainer["accumulate"],
            len(train),
        )
    if trainer["accumulate"] > 1 and any(
        isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()
    ):
        log.info(
            "this model's BatchNorm normalizes each micro-batch of %d by itself, which no accumulation can make exact "
            "(docs/training.md)",
            trainer["batch_size"],
        )
    log.info(
        "an update sees %d images (trainer.batch_size %d x trainer.accumulate %d); %d updates an epoch",
        min(trainer["batch_size"] * trainer["accumulate"], train.num_images),
        trainer["batch_size"],
        trainer["accumulate"],
        updates_per_epoch,
    )
    return TrainState(
        model=model,
        loss=loss.to(device),
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        ema=None if trainer["ema"] is None else EMA(model, trainer["ema"]),
    )


def build_optimizer(node: dict[str, Any], model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer over parameter groups that follow one rule: no weight decay on biases and norms."""
    node = dict(node)
    lr = require_number(node.get("lr"), "optim.lr")
    weight_decay = require_number(node.get("weight_decay", 0.0), "optim.weight_decay")
    layer_decay = node.pop("layer_decay", None)
    if layer_decay is not None:
        layer_decay = require_number(layer_decay, "optim.layer_decay")
    groups = param_groups(model, weight_decay=weight_decay, lr=lr, layer_decay=layer_decay)
    optimizer: torch.optim.Optimizer = build(node, "optim", params=groups)
    return optimizer


def _inference(dataset: ImageDataset, normalization: Normalization) -> dict[str, Any]:
    return {
        "class_names": dataset.class_names,
        "image_size": list(dataset.preprocessing.image_size),
        "channels": dataset.preprocessing.channels,
        "fit": dataset.preprocessing.fit,
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "flips": dataset.flips,
    }
