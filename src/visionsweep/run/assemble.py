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

from visionsweep.config.build import build
from visionsweep.config.schema import Config
from visionsweep.data.batches import (
    Augment,
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
from visionsweep.data.splits import fold_number, split_indices
from visionsweep.models.freezing import find_classifier, train_mode
from visionsweep.run.checks import (
    ForwardPass,
    check_data,
    check_loss,
    check_model,
    check_objective,
    check_settings,
    mistakes,
    validation_warning,
)
from visionsweep.run.hardware import compile_phases, use_hardware
from visionsweep.run.phase import Images, Phase
from visionsweep.run.phases import build_phases
from visionsweep.run.transfer import Transfer, read_transfer, without_transfer
from visionsweep.training.devices import (
    choose_device,
    choose_memory_format,
    choose_threads,
)
from visionsweep.training.reproducibility import seed_everything, set_deterministic
from visionsweep.training.state import FitSettings, Precision, Trained, TrainState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunParts:
    """Everything that `fit` needs, and what makes a checkpoint usable without the data."""

    dataset: ImageDataset
    train_indices: np.ndarray
    val_indices: np.ndarray
    phases: list[Phase]
    state: TrainState
    settings: FitSettings
    inference: dict[str, Any]
    num_parameters: int  # trained ones: a parameter of the run, and a possible objective

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[self.state.phase]

    @property
    def train(self) -> TrainBatches:
        """The training images, or features, of the current phase."""
        return self.phase.train

    @property
    def val(self) -> EvalBatches:
        """The validation images, or features, of the current phase."""
        return self.phase.val

    @property
    def test(self) -> EvalBatches | None:
        """The test images, or features, of the current phase, if there is a test split."""
        return self.phase.test()

    def begin_phase(self, number: int) -> None:
        """Go on to the phase `number`, counted from 0, from the weights of the current one."""
        if number == self.state.phase:
            return
        self.state.begin(number, self.phases[number].start())
        log.info(
            "from epoch %d on everything trains: %s parameters, lr up to %g",
            self.phases[number - 1].last_epoch + 1,
            f"{self.num_parameters:,}",
            max(
                group.get("initial_lr", group["lr"]) for group in self.state.optimizer.param_groups
            ),
        )


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
    transfer = read_transfer(config.model, trainer)
    device = torch.device(choose_device(trainer.device)[0])
    memory_format, _ = choose_memory_format(trainer.memory_format, device)
    # Until the model is known. A worker's last trial may have chosen another number.
    torch.set_num_threads(choose_threads(trainer.threads, share=threads, stored=stored_threads)[0])
    set_deterministic(trainer.deterministic)
    dataset = load_dataset(config.data, keep=keep_dataset)
    train_indices, val_indices = split_indices(
        dataset.train.targets.numpy(),
        dataset.train.groups,
        seed=config.seed,
        class_names=dataset.class_names,
        own_folds=dataset.train.folds,
        copy_of=dataset.train.copy_of,
        val_fraction=config.split.val_fraction,
        fold=fold_number(config.split.fold, config.split.num_folds),
        num_folds=config.split.num_folds,
    )
    check_data(dataset, len(train_indices), trainer.batch_size)
    check_objective(config.objective, config.metrics.absent_classes, dataset)
    warning = validation_warning(trainer, len(val_indices))
    if warning is not None:
        log.warning("%s", warning)

    # After the data set, whose loader may draw random numbers.
    seed_everything(config.seed)
    model = build(
        without_transfer(config.model),
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
    augment = build(
        config.augment,
        "augment",
        num_classes=dataset.num_classes,
        flips=dataset.flips,
        image_size=dataset.preprocessing.image_size,
    )
    train = _train_batches(config, dataset, augment, train_rows, placement)
    forward = _forward_pass(transfer, trainer.epochs, model, train, dataset)
    precision = use_hardware(trainer, device, forward, share=threads, stored=stored_threads)
    settings = FitSettings(
        epochs=trainer.epochs,
        clip_norm=trainer.clip_norm,
        precision=precision,
        device=device,
        class_names=dataset.class_names,
        absent_classes=config.metrics.absent_classes,
        objective=config.objective.metric,
    )
    images = Images(dataset, val_rows)
    phases = build_phases(config, transfer, images, model, train, placement, settings)
    state = _train_state(config, phases[0], dataset, precision)
    if trainer.compile:
        shape = (dataset.preprocessing.channels, *dataset.preprocessing.image_size)
        compile_phases(model, phases, shape, settings)
    trained = model if transfer.frozen_epochs(trainer.epochs) < trainer.epochs else state.model
    is_unfrozen = trained is model and transfer.is_frozen
    return RunParts(
        dataset=dataset,
        train_indices=train_indices,
        val_indices=val_indices,
        phases=phases,
        state=state,
        settings=settings,
        inference=_inference(dataset, normalization, train_rows),
        num_parameters=sum(
            p.numel() for p in trained.parameters() if p.requires_grad or is_unfrozen
        ),
    )


def _forward_pass(
    transfer: Transfer, epochs: int, model: nn.Module, train: TrainBatches, dataset: ImageDataset
) -> ForwardPass:
    """Check the model on a batch; not if it only ever computes features, once."""
    if transfer.wants_features and transfer.frozen_epochs(epochs) == epochs:
        _, classifier = find_classifier(model)
        weights = sum(parameter.numel() for parameter in classifier.parameters())
        return ForwardPass([], 2 * weights)
    return check_model(model, train, dataset)


def load_dataset(node: dict[str, Any], *, keep: bool) -> ImageDataset:
    """Return the data set of `data.*`; with ``keep`` it is shared with the next runs."""

    def load() -> ImageDataset:
        dataset: ImageDataset = build(node, "data")
        return dataset

    return remembered(node, load) if keep else load()


def _train_batches(
    config: Config,
    dataset: ImageDataset,
    augment: Augment,
    rows: torch.Tensor,
    placement: Placement,
) -> TrainBatches:
    """Return the training batches, of larger images if the augmentation crops them.

    Validation keeps the images of the model's size: it is the same with every augmentation.
    """
    trainer, image_size = config.trainer, dataset.preprocessing.image_size
    sizes = None
    if trainer.image_sizes is not None:
        sizes = make_size_schedule(trainer.image_sizes, trainer.epochs, image_size)
    images = dataset.train.images
    stored = getattr(augment, "stored", 1.0)
    if stored > 1 and dataset.train.enlarged is not None:
        images = dataset.train.enlarged(stored)
        height, width = images.shape[-2:]
        log.info(
            "augment: random crops of %dx%d pixels from %dx%d", *image_size[::-1], width, height
        )
    return TrainBatches(
        move_if_it_fits(images, placement.device),
        dataset.train.targets,
        trainer.batch_size,
        placement,
        indices=rows,
        augment=augment,
        seed=config.seed,
        balanced=trainer.sampler == "balanced",
        accumulate=trainer.accumulate,
        sizes=sizes,
    )


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
    config: Config, phase: Phase, dataset: ImageDataset, precision: Precision
) -> TrainState:
    train = phase.train
    counts = torch.bincount(dataset.train.targets[train.indices], minlength=dataset.num_classes)
    loss = build(config.loss, "loss", class_counts=counts, num_classes=dataset.num_classes)
    check_loss(loss)
    trained = phase.start()
    for warning in mistakes(loss, train, counts):
        log.warning("%s", warning)
    _log_updates(trained, train)
    return TrainState(
        trained=trained,
        loss=loss.to(train.device),
        scaler=torch.amp.GradScaler(train.device.type, enabled=precision == "fp16"),
    )


def _log_updates(trained: Trained, train: TrainBatches) -> None:
    """Log the size of an update, and whether BatchNorm sees all of it."""
    train_mode(trained.model, keep_batch_norm=trained.keep_batch_norm)
    has_batch_norm = any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        for module in trained.model.modules()
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
