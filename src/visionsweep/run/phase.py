"""One phase of a run: epochs that train the same parameters on the same kind of batches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionsweep.config.build import build, require_number
from visionsweep.config.schema import Config
from visionsweep.data.batches import EvalBatches, TrainBatches
from visionsweep.data.dataset import ImageDataset
from visionsweep.optim.param_groups import param_groups
from visionsweep.run.transfer import Transfer
from visionsweep.training.ema import EMA
from visionsweep.training.state import Trained
from visionsweep.training.swa import SWA


@dataclass(frozen=True)
class Phase:
    """Epochs that train the same parameters on the same kind of batches."""

    last_epoch: int
    train: TrainBatches
    val: EvalBatches
    test: Callable[[], EvalBatches | None]  # features of test images are computed on demand
    start: Callable[[], Trained]


@dataclass(frozen=True)
class Images:
    """The images of a run, and the rows of those to validate on."""

    dataset: ImageDataset
    val_rows: Tensor

    def test_rows(self) -> Tensor:
        """Return the rows of the test split."""
        assert self.dataset.test is not None
        return torch.arange(len(self.dataset.test))


def starter(
    config: Config,
    transfer: Transfer,
    model: nn.Module,
    updates_per_epoch: int,
    optim: Mapping[str, Any],
    span: tuple[int, int],
    trainable: list[nn.Parameter],
    *,
    whole: nn.Module | None = None,
    frozen_digest: str | None = None,
) -> Callable[[], Trained]:
    """Return the function that begins a phase of the epochs in `span`; the schedule is its own.

    ``trainable``: frozen parameters that train from then on. Optimizer and schedule are built now,
    so that wrong settings are found before the run leaves a trace.
    """
    optimizer = build_optimizer(optim, model)
    scheduler = build(
        config.scheduler,
        "scheduler",
        optimizer=optimizer,
        total_updates=(span[1] - span[0]) * updates_per_epoch,
        updates_per_epoch=updates_per_epoch,
        direction=config.objective.direction,
    )
    trainer = config.trainer

    def start() -> Trained:
        for parameter in trainable:
            parameter.requires_grad_(True)
        swa = None
        if trainer.swa is not None and span[1] == trainer.epochs:
            swa = SWA(model, (span[1] - span[0] - trainer.swa) * updates_per_epoch)
        return Trained(
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            ema=None if trainer.ema is None else EMA(model, trainer.ema),
            swa=swa,
            whole=whole,
            frozen_digest=frozen_digest,
            keep_batch_norm=transfer.keep_batch_norm,
        )

    return start


def eval_batch_size(config: Config) -> int:
    """Return the images per batch of validation and test."""
    return config.trainer.eval_batch_size or 4 * config.trainer.batch_size


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
