"""The settings of the training loop, and the state that a run resumes from."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from visionsweep.errors import UserError
from visionsweep.losses.base import Loss
from visionsweep.models.freezing import train_mode
from visionsweep.training.ema import EMA
from visionsweep.training.feature_head import FeatureHead
from visionsweep.training.swa import SWA

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class LRScheduler(Protocol):
    """Steps once per optimizer update; a plateau schedule also uses the objective of each epoch."""

    def step(self) -> None: ...
    def step_evaluation(self, value: float) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class FitSettings:
    """How to train; the same for the whole run."""

    epochs: int
    clip_norm: float | None
    precision: Precision
    device: torch.device
    class_names: list[str]
    absent_classes: Literal["zero", "skip"]
    objective: str  # a key of EpochResult.metrics

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in."""
        if self.precision in ("fp32", "tf32"):
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)


@dataclass(frozen=True)
class Trained:
    """What a phase of a run trains, and how."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    ema: EMA | None = None
    swa: SWA | None = None
    # The whole model while `model` is its head on cached features.
    whole: nn.Module | None = None
    frozen_digest: str | None = None  # of the part of `whole` that checkpoints leave out
    keep_batch_norm: bool = False  # BatchNorm keeps its running statistics


@dataclass
class TrainState:
    """Everything that training changes. A run resumes from its `state_dict`."""

    trained: Trained
    loss: Loss
    scaler: torch.amp.GradScaler  # does nothing unless the precision is fp16
    phase: int = 0  # of the run: 1 once a frozen part trains
    epoch: int = 0  # finished epochs
    step: int = 0  # optimizer updates, over the whole run
    used_lr: float | None = None  # the learning rate of the last update
    # (S,) sums of the current epoch's loss so far, on the device
    epoch_statistics: Tensor | None = None
    # (2,) sum and number of the epoch's finite gradient norms so far
    epoch_grad_norms: Tensor | None = None

    @property
    def model(self) -> nn.Module:
        """The model, or its head on cached features."""
        return self.trained.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the current phase."""
        return self.trained.optimizer

    @property
    def scheduler(self) -> LRScheduler:
        """The schedule of the current phase."""
        return self.trained.scheduler

    def begin(self, phase: int, trained: Trained) -> None:
        """Go on with what another phase trains, from the weights of the current one."""
        if self.trained.whole is not None:
            self.trained.whole.load_state_dict(self.inference_weights())
        self.phase, self.trained = phase, trained

    def train_mode(self) -> None:
        """Put the model in training mode; frozen parts stay in evaluation mode."""
        train_mode(self.model, keep_batch_norm=self.trained.keep_batch_norm)

    def update_averages(self) -> None:
        """Add the weights after an update to the averages."""
        for average in (self.trained.ema, self.trained.swa):
            if average is not None:
                average.update(self.model)

    def evaluated_model(self) -> nn.Module:
        """Return the model that validation and inference use: the average, if there is one."""
        if self.trained.swa is not None and self.trained.swa.is_active:
            return self.trained.swa.model
        return self.model if self.trained.ema is None else self.trained.ema.model

    def inference_weights(self) -> dict[str, Tensor]:
        """Return the state of the whole model that validation uses."""
        model, whole = self.evaluated_model(), self.trained.whole
        if whole is None:
            return model.state_dict()
        assert isinstance(model, FeatureHead)
        return whole.state_dict() | model.classifier_weights()

    def load_inference_weights(self, weights: dict[str, Tensor]) -> None:
        """Put the state of a whole model into the model that validation uses."""
        model, whole = self.evaluated_model(), self.trained.whole
        if whole is None:
            model.load_state_dict(weights)
            return
        assert isinstance(model, FeatureHead)
        whole.load_state_dict(weights)
        model.load_classifier_weights(weights)

    def lr(self) -> float:
        """Return the learning rate of the next update; with layer-wise decay, that of the head."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def grad_norm(self) -> float:
        """Return the mean of the epoch's measured gradient norms, before clipping.

        NaN if none was finite.
        """
        assert self.epoch_grad_norms is not None
        total, count = self.epoch_grad_norms.tolist()
        return total / count if count else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain containers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.trained.ema is None else self.trained.ema.state_dict(),
            "swa": None if self.trained.swa is None else self.trained.swa.state_dict(),
            "phase": self.phase,
            "frozen_digest": self.trained.frozen_digest,
            "epoch": self.epoch,
            "step": self.step,
            "used_lr": self.used_lr,
            "epoch_statistics": self.epoch_statistics,
            "epoch_grad_norms": self.epoch_grad_norms,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in the same phase.

        Raises `UserError` if the frozen weights, which are not in it, are others.
        """
        if state.get("frozen_digest") != self.trained.frozen_digest:
            raise UserError("the weights of model.pretrained have changed since the run started")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.trained.ema is not None:
            self.trained.ema.load_state_dict(state["ema"])
        if self.trained.swa is not None:
            self.trained.swa.load_state_dict(state["swa"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.used_lr = state.get("used_lr")  # absent in checkpoints of earlier versions
        self.epoch_statistics = state["epoch_statistics"]
        self.epoch_grad_norms = state["epoch_grad_norms"]
