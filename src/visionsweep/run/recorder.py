"""The end of an epoch: saves checkpoints, records metrics, logs a line.

Owns the order of writes: best checkpoint, last checkpoint, journal. Whenever the process dies, the
journal then holds no epoch that a resumed run trains again.
"""

import logging
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionsweep.errors import UserError
from visionsweep.run.assemble import RunParts
from visionsweep.run.context import RunContext
from visionsweep.rundir.journal import Journal, recorded_steps
from visionsweep.rundir.layout import BEST, LAST
from visionsweep.text import first_line
from visionsweep.training import checkpoint
from visionsweep.training.early_stopping import EarlyStopping
from visionsweep.training.loop import EpochResult
from visionsweep.training.metrics import CLASS_F1_PREFIX

MAX_CLASS_METRICS = 20  # MLflow's page cannot show a thousand charts
MAX_EPOCH_PREDS = 20_000  # validation images; two bytes per image and epoch in the last checkpoint

log = logging.getLogger(__name__)


class Recorder:
    """`fit`'s `on_epoch_end`: keeps the history of the run and writes it to disk."""

    def __init__(self, context: RunContext, parts: RunParts, journal: Journal) -> None:
        direction, early = context.config.objective.direction, context.config.trainer.early_stopping
        self.history: list[dict[str, Any]] = []  # one entry per finished epoch
        # While a part is frozen, an objective that no longer improves is no reason to stop.
        frozen_epochs = parts.phases[0].last_epoch if len(parts.phases) > 1 else 0
        keeps_last = context.config.trainer.checkpoint == "last"
        self.stopping = EarlyStopping(
            *(direction, early.patience, early.min_delta, frozen_epochs), keeps_last=keeps_last
        )
        self.journal = journal
        self._run_dir = context.run_dir
        self._parts = parts
        self._epoch_started = time.perf_counter()
        self._recorded: set[int] = set()  # epochs in the journal of earlier processes

    def __call__(self, result: EpochResult) -> bool:
        """Record one epoch; return whether to stop early."""
        is_best = self.stopping.update(result.epoch, result.objective)
        now = time.perf_counter()
        self.history.append(
            {
                "epoch": result.epoch,
                "time_ms": time.time_ns() // 1_000_000,
                "seconds": now - self._epoch_started,
                "train_seconds": result.train_seconds,
                "num_images": result.num_images,
                "metrics": result.metrics,
                **_kept_preds(result.preds),
            }
        )
        self._epoch_started = now
        if is_best:
            self._save_best(result)
        self.save_last()
        self._write_metrics(self.history[-1])
        self.journal.sync()
        epochs = self._parts.settings.epochs
        log.info("%s", epoch_line(result.epoch, epochs, result.metrics, is_best))
        return self.stopping.should_stop(result.epoch)

    def _save_best(self, result: EpochResult) -> None:
        contents = {
            "model": self._parts.state.inference_weights(),
            "epoch": result.epoch,
            "metrics": result.metrics,
            "inference": self._parts.inference,
        }
        checkpoint.save(contents, self._run_dir / BEST)

    def save_last(self) -> None:
        """Write everything that a resume needs."""
        contents = {"state": self._parts.state.state_dict(), **self.progress()}
        checkpoint.save(contents, self._run_dir / LAST)

    def progress(self) -> dict[str, Any]:
        """Return what a resume needs beside the state of training."""
        return {
            "best": self.stopping.state_dict(),
            "history": self.history,
            "rng": checkpoint.rng_state(self._parts.settings.device),
        }

    def go_on(self, progress: dict[str, Any]) -> None:
        """Go on with parts that this process trained up to here."""
        self._recorded = recorded_steps(self.journal.previous)
        self._restore_progress(progress)
        epochs = self._parts.settings.epochs
        log.info("resume: %d of %d epochs are done; still in memory", len(self.history), epochs)

    def restore(self) -> None:
        """Restore the last checkpoint; without one, the run starts at the first epoch.

        Raises `UserError` if it does not fit, or the best checkpoint is not there. Writes nothing.
        """
        self._recorded = recorded_steps(self.journal.previous)
        path = self._run_dir / LAST
        if not path.exists():
            log.info("resume: no checkpoint yet; starting at the first epoch")
            return
        state, settings = self._parts.state, self._parts.settings
        contents = checkpoint.load(path)
        try:
            self._parts.begin_phase(contents["state"].get("phase", 0))
            state.load_state_dict(contents["state"])
            self._restore_progress(contents)
        # torch raises many kinds of error for contents of another model or version.
        except Exception as error:
            raise UserError(
                f"{path}: does not fit this run ({first_line(error)}). Restore it, or remove it to "
                "train from the first epoch"
            ) from error
        self._require_best()
        log.info("resume: %d of %d epochs are done", state.epoch, settings.epochs)

    def _restore_progress(self, progress: dict[str, Any]) -> None:
        self.history = [dict(entry) for entry in progress["history"]]
        self.stopping.load_state_dict(progress["best"])
        checkpoint.restore_rng_state(progress["rng"], self._parts.settings.device)

    def record_missing(self) -> None:
        """Record restored epochs that an earlier process left out: it died before its journal."""
        for entry in self.history:
            self._write_metrics(entry)

    def _require_best(self) -> None:
        """Raise `UserError` unless the best checkpoint is there: the end of the run needs it."""
        path, epoch = self._run_dir / BEST, self.stopping.best_epoch
        if not epoch:
            return
        try:
            best = checkpoint.load(path)
            # A later one is of an epoch after the last checkpoint, which is trained again.
            if best.get("epoch", 0) < epoch:
                raise UserError(f"{path} is of epoch {best.get('epoch')}")
            weights = self._parts.state.inference_weights()
            if _shapes(best.get("model")) != _shapes(weights):
                raise UserError(f"{path} is of another model")
            # Earlier versions put the class "10" before "2".
            if best["inference"]["class_names"] != self._parts.dataset.class_names:
                raise UserError(f"{path} has the classes in another order")
        except UserError as error:
            raise UserError(
                f"{error}. It held the weights of the best epoch so far, {epoch}. Restore it, or "
                f"remove {self._run_dir / LAST} to train from the first epoch"
            ) from error

    def _write_metrics(self, entry: dict[str, Any]) -> None:
        # A failed trial has lost its last checkpoint: started again, it repeats epochs exactly.
        if entry["epoch"] not in self._recorded:
            self.journal.metrics(entry["epoch"], self._shown(entry["metrics"]), entry["time_ms"])

    def _shown(self, metrics: dict[str, float]) -> dict[str, float]:
        """Leave out the F1 of each class if there are many; the objective stays."""
        names = [name for name in metrics if f"/{CLASS_F1_PREFIX}" in name]
        if len(names) <= MAX_CLASS_METRICS:
            return metrics
        hidden = set(names) - {self._parts.settings.objective}
        return {name: value for name, value in metrics.items() if name not in hidden}

    def epoch_preds(self) -> NDArray[np.int16] | None:
        """Return the classes of the validation images at the end of each epoch, (E, N).

        None if they are too many, or the run began with an earlier version.
        """
        preds = [entry["preds"] for entry in self.history if "preds" in entry]
        return torch.stack(preds).numpy() if len(preds) == len(self.history) > 0 else None

    def seconds(self) -> float:
        """Return the time spent in finished epochs, over all processes of the run."""
        return math.fsum(entry["seconds"] for entry in self.history)

    def images_per_second(self) -> float | None:
        """Return the training speed over all finished epochs."""
        seconds = math.fsum(entry["train_seconds"] for entry in self.history)
        return sum(entry["num_images"] for entry in self.history) / seconds if seconds else None


def _kept_preds(preds: Tensor) -> dict[str, Tensor]:
    """Return what the history keeps of an epoch's predictions: all, or nothing if they are many.

    They tell how much luck there is in the choice of the epoch; with more images there is little.
    """
    return {"preds": preds} if len(preds) <= MAX_EPOCH_PREDS else {}


def _shapes(weights: Any) -> dict[str, Any]:
    found = weights if isinstance(weights, dict) else {}
    return {name: getattr(value, "shape", None) for name, value in found.items()}


def epoch_line(epoch: int, epochs: int, metrics: dict[str, float], is_best: bool) -> str:
    """Return the line of one epoch for the terminal."""
    speed = metrics.get("train/images_per_second")
    return (
        f"epoch {epoch:{len(str(epochs))}d}/{epochs}  train loss {metrics['train/loss']:.4f}  "
        f"val loss {metrics['val/loss']:.4f}  F1 {metrics['val/f1_macro']:.4f}"
        f"{'*' if is_best else ' '}  lr {metrics['train/lr']:.2e}  "
        f"{'-' if speed is None else f'{speed:,.0f}'} images/s"
    )
