"""From the config to the parts of a run: data, batches, model, loss, optimizer, scheduler.

Nothing is written here, so whatever is wrong is found before the run leaves a trace.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from visionsweep.config.build import build, require_number
from visionsweep.config.schema import Config, TrainerConfig
from visionsweep.data.batches import (
    EvalBatches,
    Normalization,
    Placement,
    TrainBatches,
    move_if_it_fits,
)
from visionsweep.data.dataset import ImageDataset
from visionsweep.data.memo import remembered
from visionsweep.data.preprocessing import to_plain
from visionsweep.data.size_schedule import make_size_schedule
from visionsweep.data.splits import split_indices
from visionsweep.optim.param_groups import param_groups
from visionsweep.run.checks import (
    ForwardPass,
    check_data,
    check_loss,
    check_model,
    check_objective,
    check_settings,
    mistakes,
)
from visionsweep.training.compiled import compile_model
from visionsweep.training.devices import (
    choose_device,
    choose_memory_format,
    choose_precision,
    choose_threads,
)
from visionsweep.training.ema import EMA
from visionsweep.training.reproducibility import seed_everything, set_deterministic, set_tf32
from visionsweep.training.state import FitSettings, Precision, TrainState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunParts:
    """Everything that `fit` needs, and what makes a checkpoint usable without the data."""

    dataset: ImageDataset
    train_indices: np.ndarray
    val_indices: np.ndarray
    train: TrainBatches
    val: EvalBatches
    test: EvalBatches | None
    state: TrainState
    settings: FitSettings
    inference: dict[str, Any]

    @property
    def num_parameters(self) -> int:
        """The number of trained parameters: a parameter of the run, and a possible objective."""
        return sum(p.numel() for p in self.state.model.parameters() if p.requires_grad)


def assemble(
    config: Config,
    *,
    threads: int | None = None,
    stored_threads: int | None = None,
    keep_dataset: bool = False,
) -> RunParts:
    """Build the parts of a run. Raises `ConfigError` or `DataError`.

    ``threads``: the CPU threads of a sweep's worker; None outside of one. ``stored_threads``: those
    that a resumed run started with. ``keep_dataset``: share the data set with the other runs of
    this process, as a worker does.
    """
    trainer = config.trainer
    check_settings(config)
    device = torch.device(choose_device(trainer.device)[0])
    memory_format, _ = choose_memory_format(trainer.memory_format, device)
    # Until the model is known. A worker's last trial may have chosen another number.
    torch.set_num_threads(choose_threads(trainer.threads, share=threads, stored=stored_threads)[0])
    set_deterministic(trainer.deterministic)
    dataset = _dataset(config.data, keep=keep_dataset)
    train_indices, val_indices = split_indices(
        dataset.train.targets.numpy(),
        dataset.train.groups,
        seed=config.seed,
        class_names=dataset.class_names,
        own_folds=dataset.train.folds,
        copy_of=dataset.train.copy_of,
        **vars(config.split),
    )
    check_data(dataset, len(train_indices), trainer.batch_size)
    check_objective(config.objective, config.metrics.absent_classes, dataset)

    # After the data set, whose loader may draw random numbers.
    seed_everything(config.seed)
    model = build(
        config.model,
        "model",
        num_classes=dataset.num_classes,
        in_channels=dataset.preprocessing.channels,
        in_chans=dataset.preprocessing.channels,
        image_size=dataset.preprocessing.image_size,
    )
    train_rows, val_rows = torch.from_numpy(train_indices), torch.from_numpy(val_indices)
    normalization = _normalization(config.model, model, dataset, train_rows)
    model = model.to(device, memory_format=memory_format)
    placement = Placement(normalization, device, memory_format)
    images = move_if_it_fits(dataset.train.images, device)
    train = _train_batches(config, dataset, images, train_rows, placement)
    forward = check_model(model, train, dataset)
    precision = _use_machine(trainer, device, forward, share=threads, stored_threads=stored_threads)
    settings = FitSettings(
        epochs=trainer.epochs,
        clip_norm=trainer.clip_norm,
        precision=precision,
        device=device,
        class_names=dataset.class_names,
        absent_classes=config.metrics.absent_classes,
        objective=config.objective.metric,
    )
    state = _train_state(config, model, dataset, train, precision)
    if trainer.compile:  # the average of weights has its copy already, and stays as it is
        shape = (
            trainer.batch_size,
            dataset.preprocessing.channels,
            *dataset.preprocessing.image_size,
        )
        example = torch.zeros(shape, device=device).contiguous(memory_format=memory_format)
        seconds = compile_model(model, example, settings.autocast())
        log.info("compiled the model in %.1f s", seconds)
    eval_size = trainer.eval_batch_size or 4 * trainer.batch_size
    return RunParts(
        dataset=dataset,
        train_indices=train_indices,
        val_indices=val_indices,
        train=train,
        val=EvalBatches(images, dataset.train.targets, eval_size, placement, indices=val_rows),
        test=_test_batches(dataset, eval_size, placement),
        state=state,
        settings=settings,
        inference=_inference(dataset, normalization, train_rows),
    )


def _use_machine(
    trainer: TrainerConfig,
    device: torch.device,
    forward: ForwardPass,
    *,
    share: int | None,
    stored_threads: int | None,
) -> Precision:
    """Set the number of threads, log each choice with its reason, and return the precision."""
    on_cpu = device.type == "cpu"
    flops = forward.flops * trainer.batch_size if on_cpu else None
    threads, threads_reason = choose_threads(
        trainer.threads, share=share, stored=stored_threads, flops=flops
    )
    torch.set_num_threads(threads)
    precision, precision_reason = choose_precision(trainer.precision, device)
    if precision == "bf16" and on_cpu and forward.unsafe_bf16:
        precision, precision_reason = "fp32", "bf16 is not safe for this model"
        log.warning(
            "precision=fp32 instead of bf16: on a CPU, torch %s leaves out a part of the bf16 "
            "gradient of a convolution with %s (docs/training.md)",
            *(torch.__version__, forward.unsafe_bf16[0]),
        )
    set_tf32(precision == "tf32")
    _, (format_name, format_reason) = choose_memory_format(trainer.memory_format, device)
    log.info(
        "device=%s (%s)  threads=%d (%s)  precision=%s (%s)  memory_format=%s (%s)",
        *choose_device(trainer.device),
        *(threads, threads_reason),
        *(precision, precision_reason, format_name, format_reason),
    )
    return precision


def _dataset(node: dict[str, Any], *, keep: bool) -> ImageDataset:
    def load() -> ImageDataset:
        dataset: ImageDataset = build(node, "data")
        return dataset

    return remembered(node, load) if keep else load()


def _train_batches(
    config: Config,
    dataset: ImageDataset,
    images: torch.Tensor,
    rows: torch.Tensor,
    placement: Placement,
) -> TrainBatches:
    """Return the training batches of `images`, which are on the device if they fit, or larger ones.

    Validation keeps the images of the model's size: it is the same with every augmentation.
    """
    trainer, image_size = config.trainer, dataset.preprocessing.image_size
    sizes = None
    if trainer.image_sizes is not None:
        sizes = make_size_schedule(trainer.image_sizes, trainer.epochs, image_size)
    augment = build(
        config.augment,
        "augment",
        num_classes=dataset.num_classes,
        flips=dataset.flips,
        image_size=image_size,
    )
    stored = getattr(augment, "stored", 1.0)
    if stored > 1 and dataset.train.enlarged is not None:
        images = move_if_it_fits(dataset.train.enlarged(stored), placement.device)
        height, width = images.shape[-2:]
        log.info(
            "augment: random crops of %dx%d pixels from %dx%d", *image_size[::-1], width, height
        )
    return TrainBatches(
        images,
        dataset.train.targets,
        config.trainer.batch_size,
        placement,
        indices=rows,
        augment=augment,
        seed=config.seed,
        balanced=config.trainer.sampler == "balanced",
        accumulate=config.trainer.accumulate,
        sizes=sizes,
    )


def _test_batches(
    dataset: ImageDataset, batch_size: int, placement: Placement
) -> EvalBatches | None:
    if dataset.test is None:
        return None
    images = move_if_it_fits(dataset.test.images, placement.device)
    rows = torch.arange(len(dataset.test))
    return EvalBatches(images, dataset.test.targets, batch_size, placement, indices=rows)


def _normalization(
    node: Mapping[str, Any], model: nn.Module, dataset: ImageDataset, indices: torch.Tensor
) -> Normalization:
    pretrained = getattr(model, "pretrained_cfg", None) if node.get("pretrained") else None
    if pretrained and len(pretrained["mean"]) == dataset.preprocessing.channels:
        mean, std = tuple(pretrained["mean"]), tuple(pretrained["std"])
        log.info(
            "normalization of the pretrained weights: mean %s, std %s",
            *(" ".join(f"{value:.4g}" for value in values) for values in (mean, std)),
        )
        return Normalization(mean, std)
    return Normalization.of(dataset.train.images, indices)


def _train_state(
    config: Config, model: nn.Module, dataset: ImageDataset, train: TrainBatches, precision: str
) -> TrainState:
    trainer = config.trainer
    counts = torch.bincount(dataset.train.targets[train.indices], minlength=dataset.num_classes)
    loss = build(config.loss, "loss", class_counts=counts, num_classes=dataset.num_classes)
    check_loss(loss)
    optimizer = build_optimizer(config.optim, model)
    scheduler = build(
        config.scheduler,
        "scheduler",
        optimizer=optimizer,
        total_updates=trainer.epochs * train.num_updates,
        updates_per_epoch=train.num_updates,
        direction=config.objective.direction,
    )
    for warning in mistakes(loss, train, counts):
        log.warning("%s", warning)
    _log_updates(model, train)
    return TrainState(
        model=model,
        loss=loss.to(train.device),
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(train.device.type, enabled=precision == "fp16"),
        ema=None if trainer.ema is None else EMA(model, trainer.ema),
    )


def _log_updates(model: nn.Module, train: TrainBatches) -> None:
    """Log the size of an update, and whether BatchNorm sees all of it."""
    has_batch_norm = any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()
    )
    if train.accumulate > 1 and has_batch_norm:
        log.info(
            "BatchNorm normalizes each micro-batch of %d images by itself, so accumulation cannot "
            "be exact for this model (docs/training.md)",
            train.batch_size,
        )
    log.info(
        "%d images per update (trainer.batch_size %d x trainer.accumulate %d), "
        "%d updates per epoch",
        min(train.batch_size * train.accumulate, train.num_images),
        *(train.batch_size, train.accumulate, train.num_updates),
    )


def build_optimizer(node: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer over parameter groups: no weight decay on biases and norms."""
    node = dict(node)
    lr = require_number(node.get("lr"), "optim.lr")
    weight_decay = require_number(node.get("weight_decay", 0.0), "optim.weight_decay")
    layer_decay = node.pop("layer_decay", None)
    if layer_decay is not None:
        layer_decay = require_number(layer_decay, "optim.layer_decay")
    groups = param_groups(model, weight_decay=weight_decay, lr=lr, layer_decay=layer_decay)
    optimizer: torch.optim.Optimizer = build(node, "optim", params=groups)
    return optimizer


def _inference(
    dataset: ImageDataset, normalization: Normalization, train_rows: torch.Tensor
) -> dict[str, Any]:
    counts = torch.bincount(dataset.train.targets[train_rows], minlength=dataset.num_classes)
    return {
        "class_names": dataset.class_names,
        **to_plain(dataset.preprocessing),
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "flips": dataset.flips,
        "class_counts": counts.tolist(),
    }
