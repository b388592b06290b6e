"""The settings of the training loop, and the state that a run resumes from."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from visionsweep.losses.base import Loss
from visionsweep.training.ema import EMA

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


@dataclass
class TrainState:
    """Everything that training changes. A run resumes from its `state_dict`."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler  # does nothing unless the precision is fp16
    ema: EMA | None = None
    epoch: int = 0  # finished epochs
    step: int = 0  # optimizer updates, over the whole run
    used_lr: float | None = None  # the learning rate of the last update
    # (S,) sums of the current epoch's loss so far, on the device
    epoch_statistics: Tensor | None = None
    # (2,) sum and number of the epoch's finite gradient norms so far
    epoch_grad_norms: Tensor | None = None

    def evaluated_model(self) -> nn.Module:
        """Return the model that validation and inference use: the average, if there is one."""
        return self.model if self.ema is None else self.ema.model

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
            "ema": None if self.ema is None else self.ema.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "used_lr": self.used_lr,
            "epoch_statistics": self.epoch_statistics,
            "epoch_grad_norms": self.epoch_grad_norms,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.used_lr = state.get("used_lr")  # absent in checkpoints of earlier versions
        self.epoch_statistics = state["epoch_statistics"]
        self.epoch_grad_norms = state["epoch_grad_norms"]
