"""The training loop: plain functions on tensors. Knows nothing of Hydra, files or MLflow.

`fit` has one seam, `on_epoch_end`: recording, checkpoints, early stopping and pruning are functions that run.py
composes behind it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from visionsweep.data.batches import Batch, EvalBatches, TrainBatches
from visionsweep.errors import TrainingError
from visionsweep.losses.base import Loss
from visionsweep.training.accumulation import backward
from visionsweep.training.ema import EMA
from visionsweep.training.metrics import classification_metrics, confusion_matrix

# On a GPU a finite-loss check makes the host wait, so it comes every so many updates (and names the exact one).
GPU_CHECK_EVERY_UPDATES = 50
# The first of an epoch, and so on: a norm costs some twenty small operations, a tenth of a small network's update.
GRAD_NORM_EVERY_UPDATES = 10


class LRScheduler(Protocol):
    """Steps once an optimizer update; a plateau schedule also looks at each evaluation's objective."""

    def step(self) -> None: ...
    def step_evaluation(self, value: float) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Interrupted(Exception):  # noqa: N818 - it is a request that was honoured, not an error
    """The user asked to stop; `TrainState` says where."""


@dataclass(frozen=True)
class Settings:
    """How to train, fixed for the whole run."""

    epochs: int
    accumulate: int
    clip_norm: float | None
    precision: Literal["fp32", "bf16", "fp16"]
    device: torch.device
    class_names: list[str]
    absent_classes: Literal["zero", "skip"]
    objective: str  # a key of EpochResult.metrics

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in."""
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)


@dataclass
class TrainState:
    """Everything that changes while training; its `state_dict` is what a resumed run goes on from."""

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler  # does nothing unless the precision is fp16
    ema: EMA | None = None
    epoch: int = 0  # finished epochs
    step: int = 0  # optimizer updates, over the whole run
    batch: int = 0  # micro-batches of the current epoch that are done
    epoch_statistics: Tensor | None = (
        None  # (S,) sums of the current epoch's loss so far, on the device
    )
    epoch_grad_norms: Tensor | None = (
        None  # (2,) sum and number of the epoch's finite gradient norms so far
    )

    def evaluated_model(self) -> nn.Module:
        """Return the weights that validation and inference use."""
        return self.model if self.ema is None else self.ema.model

    def lr(self) -> float:
        """Return the base learning rate of the last or coming update: with layer-wise decay, that of the head."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def grad_norm(self) -> float:
        """Return the mean gradient norm (before clipping) of the epoch's measured updates; NaN if none was finite."""
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
            "batch": self.batch,
            "epoch_statistics": self.epoch_statistics,
            "epoch_grad_norms": self.epoch_grad_norms,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]
        self.epoch_statistics = state["epoch_statistics"]
        self.epoch_grad_norms = state["epoch_grad_norms"]


@dataclass(frozen=True)
class Evaluation:
    """A model's result on a whole set of images."""

    loss: float
    matrix: Tensor  # (K, K) int64 on the CPU: rows are targets, columns predictions
    top5_accuracy: float | None  # None for five classes or fewer

    def metrics(self, settings: Settings, prefix: str) -> dict[str, float]:
        """Return every metric, each named ``prefix/name``."""
        values = {"loss": self.loss}
        values |= classification_metrics(self.matrix, settings.class_names, settings.absent_classes)
        if self.top5_accuracy is not None:
            values["top5_accuracy"] = self.top5_accuracy
        return {f"{prefix}/{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class EpochResult:
    """What `on_epoch_end` learns."""

    epoch: int  # counted from 1
    metrics: dict[str, float]
    objective: float
    matrix: Tensor  # (K, K) int64: the validation set's confusion matrix
    train_seconds: float
    num_images: int  # trained on in those seconds


Progress = Callable[
    [Iterable[Batch], int], Iterator[Batch]
]  # (batches, how many are left) -> the same batches


def fit(
    state: TrainState,
    train: TrainBatches,
    val: EvalBatches,
    settings: Settings,
    *,
    on_epoch_end: Callable[[EpochResult], str | None],
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda batches, _: iter(batches),
) -> str | None:
    """Train from where `state` stands to the last epoch.

    ``on_epoch_end`` may return a reason to end the run early; it is returned. Raises `Interrupted` soon after
    ``should_stop()`` turns true, with `state` at the last update, and `TrainingError` when the loss or the
    objective is no number.
    """
    while state.epoch < settings.epochs:
        started = time.perf_counter()
        train_loss, num_images = train_epoch(
            state, train, settings, should_stop=should_stop, progress=progress
        )
        train_seconds = time.perf_counter() - started
        evaluation = evaluate(state.evaluated_model(), state.loss, val, settings)
        metrics = {
            "train/loss": train_loss,
            **evaluation.metrics(settings, "val"),
            "train/lr": state.lr(),
            "train/grad_norm": state.grad_norm(),
        }
        if num_images:  # none is left where a run was stopped at the very end of an epoch
            metrics["train/images_per_second"] = num_images / train_seconds
        state.epoch += 1
        state.batch, state.epoch_statistics, state.epoch_grad_norms = 0, None, None
        objective = metrics[settings.objective]
        if not math.isfinite(objective):
            raise TrainingError(
                f"{settings.objective} is {objective} at epoch {state.epoch}; "
                "try a lower optim.lr or trainer.clip_norm=1"
            )
        state.scheduler.step_evaluation(objective)
        result = EpochResult(
            state.epoch, metrics, objective, evaluation.matrix, train_seconds, num_images
        )
        reason = on_epoch_end(result)
        if reason is not None:
            return reason
    return None


def train_epoch(
    state: TrainState,
    train: TrainBatches,
    settings: Settings,
    *,
    should_stop: Callable[[], bool],
    progress: Progress,
) -> tuple[float, int]:
    """Run the rest of the current epoch; return the whole epoch's loss and the number of images trained on here."""
    state.model.train()
    wide = torch.float32 if settings.device.type == "mps" else torch.float64  # mps has no float64
    if state.epoch_statistics is not None:  # of a run that was stopped within this epoch
        state.epoch_statistics = state.epoch_statistics.to(settings.device, wide)
        assert state.epoch_grad_norms is not None
        state.epoch_grad_norms = state.epoch_grad_norms.to(settings.device)
    num_images = 0
    finite = _FiniteCheck(
        state, every=1 if settings.device.type == "cpu" else GPU_CHECK_EVERY_UPDATES
    )
    batches = train.epoch(state.epoch, start=state.batch)
    for window in _windows(progress(batches, len(train) - state.batch), settings.accumulate):
        statistics = backward(
            state.model, state.loss, window, settings.autocast, state.scaler.scale
        )
        finite.add(statistics)
        is_measured = state.batch // settings.accumulate % GRAD_NORM_EVERY_UPDATES == 0
        norm = update(state, settings.clip_norm, wants_norm=is_measured)
        if norm is not None:
            add_grad_norm(state, norm)
        state.batch += len(window)
        num_images += sum(len(batch.targets) for batch in window)
        totals = statistics.to(wide)
        state.epoch_statistics = (
            totals if state.epoch_statistics is None else state.epoch_statistics + totals
        )
        if should_stop():
            finite.check()
            raise Interrupted
    finite.check()
    assert state.epoch_statistics is not None  # train.epoch yields at least one batch
    return float(state.loss.value(state.epoch_statistics)), num_images


def update(
    state: TrainState, clip_norm: float | None, *, wants_norm: bool = False
) -> Tensor | None:
    """Take one optimizer update from the gradients, and everything that steps with it.

    Returns the gradient's norm before clipping where it is wanted, a float32 scalar on the device: 2-norm over all
    parameters.
    """
    state.scaler.unscale_(state.optimizer)
    norm = None
    if wants_norm or clip_norm is not None:
        parameters = [
            parameter for group in state.optimizer.param_groups for parameter in group["params"]
        ]
        norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in parameters if parameter.grad is not None]
        )
        if clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.scheduler.step()
    if state.ema is not None:
        state.ema.update(state.model)
    state.step += 1
    return norm if wants_norm else None


def add_grad_norm(state: TrainState, norm: Tensor) -> None:
    """Count an update's gradient norm, unless it overflowed: fp16 skips that update."""
    is_finite = norm.isfinite()
    pair = torch.stack([torch.where(is_finite, norm, 0.0), is_finite.to(norm.dtype)])
    state.epoch_grad_norms = (
        pair if state.epoch_grad_norms is None else state.epoch_grad_norms + pair
    )


@torch.inference_mode()
def evaluate(model: nn.Module, loss: Loss, batches: EvalBatches, settings: Settings) -> Evaluation:
    """Return the loss and the confusion matrix over all of `batches`."""
    model.eval()
    num_classes = len(settings.class_names)
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=settings.device)
    statistics: Tensor | None = None
    hits = torch.zeros((), dtype=torch.int64, device=settings.device)
    for batch in batches:
        with settings.autocast():
            logits = model(batch.images)
        part = loss.statistics(logits, batch.targets)
        part = part.double() if settings.device.type != "mps" else part
        statistics = part if statistics is None else statistics + part
        matrix += confusion_matrix(logits.argmax(dim=1), batch.targets, num_classes)
        if num_classes > 5:
            hits += (logits.topk(5, dim=1).indices == batch.targets[:, None]).any(dim=1).sum()
    assert statistics is not None  # an empty validation set is refused before training
    return Evaluation(
        loss=float(loss.value(statistics)),
        matrix=matrix.cpu(),
        top5_accuracy=int(hits) / int(matrix.sum()) if num_classes > 5 else None,
    )


@torch.inference_mode()
def predict_probabilities(model: nn.Module, batches: EvalBatches, settings: Settings) -> Tensor:
    """Return the (N, K) float32 probabilities (softmax) of all images, in the order of `batches`, on the CPU."""
    model.eval()
    parts = []
    for batch in batches:
        with settings.autocast():
            logits = model(batch.images)
        parts.append(logits.float().softmax(dim=1))
    return torch.cat(parts).cpu()


def _windows(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of `size` micro-batches, the last one shorter where they do not divide."""
    window: list[Batch] = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


class _FiniteCheck:
    """Stops training at a loss that is no number, and names the update, although it looks only now and then."""

    def __init__(self, state: TrainState, every: int) -> None:
        self._state = state
        self._every = every
        self._pending: list[tuple[int, float, Tensor]] = []

    def add(self, statistics: Tensor) -> None:
        """Note the statistics of the update about to be made."""
        self._pending.append(
            (self._state.step + 1, self._state.lr(), self._state.loss.value(statistics))
        )
        if len(self._pending) >= self._every:
            self.check()

    def check(self) -> None:
        """Raise `TrainingError` for the first update whose loss is not finite."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        losses = torch.stack([loss for _, _, loss in pending]).tolist()
        for (step, lr, _), loss in zip(pending, losses, strict=True):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"loss is {loss} at epoch {self._state.epoch + 1}, step {step} (lr={lr:g}); "
                    "try a lower optim.lr or trainer.clip_norm=1"
                )
