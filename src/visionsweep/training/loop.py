"""The training loop: plain functions on tensors, free of Hydra, files and MLflow.

`fit` has one seam, `on_epoch_end`: recording, checkpoints, early stopping and pruning are functions
that run/ composes behind it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionsweep.data.batches import Batch, EvalBatches, TrainBatches
from visionsweep.errors import TrainingError
from visionsweep.training.accumulation import backward
from visionsweep.training.evaluation import REMEDY, evaluate
from visionsweep.training.state import FitSettings, TrainState

# A check for a finite loss makes the host wait for the GPU. It still names the exact update.
GPU_CHECK_EVERY_UPDATES = 50
# A norm costs some twenty small operations: a tenth of a small network's update.
GRAD_NORM_EVERY_UPDATES = 10


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training stopped on request; `TrainState` says where."""


@dataclass(frozen=True)
class EpochResult:
    """The result of an epoch, for `on_epoch_end`."""

    epoch: int  # counted from 1
    metrics: dict[str, float]
    objective: float
    train_seconds: float
    num_images: int  # training images in those seconds
    preds: Tensor  # (N,) int16 classes of the validation images, on the CPU


# (updates, their number) -> the same updates
Progress = Callable[[Iterable[list[Batch]], int], Iterator[list[Batch]]]


def fit(
    state: TrainState,
    train: TrainBatches,
    val: EvalBatches,
    settings: FitSettings,
    *,
    on_epoch_end: Callable[[EpochResult], bool],
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda updates, _: iter(updates),
) -> None:
    """Train from `state` to the last epoch, or until ``on_epoch_end`` returns True.

    Raises `Interrupted` after the update in which ``should_stop()`` becomes true, and
    `TrainingError` if a loss or a prediction is not finite.
    """
    while state.epoch < settings.epochs:
        started = time.perf_counter()
        train_loss, num_images = train_epoch(
            state, train, settings, should_stop=should_stop, progress=progress
        )
        train_seconds = time.perf_counter() - started
        where = f"val at epoch {state.epoch + 1}"
        evaluation = evaluate(state.evaluated_model(), state.loss, val, settings, where=where)
        metrics = {
            "train/loss": train_loss,
            **evaluation.metrics(settings, "val"),
            "train/lr": state.lr() if state.used_lr is None else state.used_lr,
            "train/grad_norm": state.grad_norm(),
        }
        if num_images:  # 0 if the run was stopped after the last update of the epoch
            metrics["train/images_per_second"] = num_images / train_seconds
        state.epoch += 1
        state.epoch_statistics, state.epoch_grad_norms = None, None
        objective = metrics[settings.objective]
        state.scheduler.step_evaluation(objective)
        result = EpochResult(
            state.epoch, metrics, objective, train_seconds, num_images, evaluation.preds
        )
        if on_epoch_end(result):
            return


def train_epoch(
    state: TrainState,
    train: TrainBatches,
    settings: FitSettings,
    *,
    should_stop: Callable[[], bool],
    progress: Progress,
) -> tuple[float, int]:
    """Train the rest of the current epoch.

    Returns the loss of the whole epoch, and the number of images of the part trained here.
    """
    state.train_mode()
    wide = torch.float32 if settings.device.type == "mps" else torch.float64  # mps has no float64
    if state.epoch_statistics is not None:  # the run was stopped within this epoch
        state.epoch_statistics = state.epoch_statistics.to(settings.device, wide)
        assert state.epoch_grad_norms is not None
        state.epoch_grad_norms = state.epoch_grad_norms.to(settings.device)
    num_images = 0
    finite = _FiniteCheck(
        state, every=1 if settings.device.type == "cpu" else GPU_CHECK_EVERY_UPDATES
    )
    start = state.step - state.epoch * train.num_updates
    updates = progress(train.updates(state.epoch, start), train.num_updates - start)
    for number, batches in enumerate(updates, start):
        statistics = backward(
            state.model, state.loss, batches, settings.autocast, state.scaler.scale
        )
        finite.add(statistics)
        is_measured = number % GRAD_NORM_EVERY_UPDATES == 0
        norm = update(state, settings.clip_norm, wants_norm=is_measured)
        if norm is not None:
            add_grad_norm(state, norm)
        num_images += sum(len(batch.targets) for batch in batches)
        totals = statistics.to(wide)
        state.epoch_statistics = (
            totals if state.epoch_statistics is None else state.epoch_statistics + totals
        )
        if should_stop():
            finite.check()
            raise Interrupted
    finite.check()
    assert state.epoch_statistics is not None  # an epoch has at least one update
    return float(state.loss.value(state.epoch_statistics)), num_images


def update(
    state: TrainState, clip_norm: float | None, *, wants_norm: bool = False
) -> Tensor | None:
    """Update the parameters from their gradients, and step scaler, scheduler and averages.

    With ``wants_norm``, returns the 2-norm of the whole gradient before clipping: a float32 scalar
    on the device.
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
    state.used_lr = state.lr()
    state.scheduler.step()
    state.update_averages()
    state.step += 1
    return norm if wants_norm else None


def add_grad_norm(state: TrainState, norm: Tensor) -> None:
    """Add the gradient norm of an update, unless it overflowed: fp16 skips such an update."""
    is_finite = norm.isfinite()
    pair = torch.stack([torch.where(is_finite, norm, 0.0), is_finite.to(norm.dtype)])
    state.epoch_grad_norms = (
        pair if state.epoch_grad_norms is None else state.epoch_grad_norms + pair
    )


class _FiniteCheck:
    """Stops training if a loss is not finite: checks every few updates, names the exact one."""

    def __init__(self, state: TrainState, every: int) -> None:
        self._state = state
        self._every = every
        self._pending: list[tuple[int, float, Tensor]] = []

    def add(self, statistics: Tensor) -> None:
        """Add the loss statistics of the coming update."""
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
                    f"{REMEDY}"
                )
