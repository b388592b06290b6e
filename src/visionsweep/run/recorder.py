"""What happens at the end of an epoch: the best is kept, the checkpoint and the record are written, a line is shown.

Owns the order of writes. Weights first, then `last.pt`, then the journal: whenever the process dies, the journal
holds no epoch that a resumed run would train again.
"""

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from visionsweep.rundir.journal import Journal, last_step, read_journal
from visionsweep.rundir.result import BEST, LAST
from visionsweep.training import checkpoint
from visionsweep.training.loop import EpochResult, TrainState
from visionsweep.training.metrics import CLASS_F1_PREFIX

if TYPE_CHECKING:
    from torch import nn

MAX_CLASS_METRICS = 20  # with more classes the table figures/per_class.csv alone has the F1 of each

log = logging.getLogger(__name__)


class Best:
    """The best objective so far, and whether it is time to give up."""

    def __init__(
        self, direction: Literal["maximize", "minimize"], patience: int | None, min_delta: float
    ) -> None:
        self._sign = 1.0 if direction == "maximize" else -1.0
        self._patience = patience
        self._min_delta = min_delta
        self.value: float | None = None
        self.epoch = 0
        self._reference = (
            -math.inf
        )  # signed; what early stopping compares with, moves by min_delta or more
        self._reference_epoch = 0

    def update(self, epoch: int, value: float) -> bool:
        """Take an epoch's objective; return whether it is the best. A tie keeps the earlier epoch."""
        signed = self._sign * value
        if signed > self._reference + self._min_delta:
            self._reference, self._reference_epoch = signed, epoch
        if self.value is None or signed > self._sign * self.value:
            self.value, self.epoch = value, epoch
            return True
        return False

    def give_up(self, epoch: int) -> str | None:
        """Return why the run should end after `epoch`, or None."""
        waited = epoch - self._reference_epoch
        if self._patience is None or waited < self._patience:
            return None
        return f"no better objective for {waited} epochs (trainer.early_stopping.patience={self._patience})"

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "value": self.value,
            "epoch": self.epoch,
            "reference": self._reference,
            "reference_epoch": self._reference_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.value, self.epoch = state["value"], state["epoch"]
        self._reference, self._reference_epoch = state["reference"], state["reference_epoch"]


class Recorder:
    """`fit`'s `on_epoch_end`: keeps the history of the run, and writes it down."""

    def __init__(
        self,
        run_dir: Path,
        state: TrainState,
        best: Best,
        journal: Journal,
        *,
        epochs: int,
        inference: dict[str, Any],
        objective: str,
    ) -> None:
        """``objective`` names the metric that `best` is told; the record always has it."""
        self.history: list[dict[str, Any]] = []  # one entry a finished epoch
        self.best = best
        self.journal = journal
        self.num_parameters = count_parameters(state.model)
        self._run_dir = run_dir
        self._state = state
        self._device = next(state.model.parameters()).device
        self._epochs = epochs
        self._inference = inference
        self._objective = objective
        self._epoch_started = time.perf_counter()
        self._num_written = 0  # epochs that the journal had already when the run was taken up

    def __call__(self, result: EpochResult) -> str | None:
        """Record one epoch; return why the run should end early, or None."""
        is_best = self.best.update(result.epoch, result.objective)
        now = time.perf_counter()
        self.history.append(
            {
                "epoch": result.epoch,
                "time_ms": time.time_ns() // 1_000_000,
                "seconds": now - self._epoch_started,
                "train_seconds": result.train_seconds,
                "num_images": result.num_images,
                "metrics": result.metrics,
            }
        )
        self._epoch_started = now
        if is_best:
            self._save_best(result)
        self.save_last()
        self._write_metrics(self.history[-1])
        self.journal.sync()
        log.info("%s", epoch_line(result.epoch, self._epochs, result.metrics, is_best))
        return self.best.give_up(result.epoch)

    def _save_best(self, result: EpochResult) -> None:
        contents = {
            "model": self._state.evaluated_model().state_dict(),
            "epoch": result.epoch,
            "metrics": result.metrics,
            "matrix": result.matrix,
            "inference": self._inference,
        }
        checkpoint.save(contents, self._run_dir / BEST)

    def save_last(self) -> None:
        """Write everything that the run needs to go on."""
        contents = {
            "state": self._state.state_dict(),
            "best": self.best.state_dict(),
            "history": self.history,
            "rng": checkpoint.rng_state(self._device),
        }
        checkpoint.save(contents, self._run_dir / LAST)

    def resume(self) -> None:
        """Go on from `last.pt`, if the run got that far and still has it; otherwise from the start."""
        self._num_written = last_step(read_journal(self._run_dir)) or 0
        path = self._run_dir / LAST
        if not path.exists():
            log.info("resume: no checkpoint to go on from; starting at the first epoch")
            return
        contents = checkpoint.load(path)
        self._state.load_state_dict(contents["state"])
        self.best.load_state_dict(contents["best"])
        self.history = contents["history"]
        checkpoint.restore_rng_state(contents["rng"], self._device)
        # The process may have died between `last.pt` and the journal.
        for entry in self.history:
            self._write_metrics(entry)
        log.info("resume: %d of %d epochs are done", self._state.epoch, self._epochs)

    def _write_metrics(self, entry: dict[str, Any]) -> None:
        # A run that starts over (a sweep removes `last.pt` of a trial that failed) repeats epochs, exactly.
        if entry["epoch"] > self._num_written:
            self.journal.metrics(entry["epoch"], self._shown(entry["metrics"]), entry["time_ms"])

    def _shown(self, metrics: dict[str, float]) -> dict[str, float]:
        """Leave out the F1 of each class where there are many: MLflow's page cannot show a thousand charts."""
        is_class = f"/{CLASS_F1_PREFIX}"
        if sum(is_class in name for name in metrics) <= MAX_CLASS_METRICS:
            return metrics
        return {
            name: value
            for name, value in metrics.items()
            if is_class not in name or name == self._objective
        }

    def best_checkpoint(self) -> dict[str, Any]:
        """Return the contents of `best.pt`."""
        return checkpoint.load(self._run_dir / BEST)

    def seconds(self) -> float:
        """Return the time spent in finished epochs, over every resume."""
        return math.fsum(entry["seconds"] for entry in self.history)

    def images_per_second(self) -> float | None:
        """Return the training speed over all finished epochs."""
        seconds = math.fsum(entry["train_seconds"] for entry in self.history)
        return sum(entry["num_images"] for entry in self.history) / seconds if seconds else None


def count_parameters(model: "nn.Module") -> int:
    """Return how many parameters are trained: `num_parameters` among the parameters and objectives of a run."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def epoch_line(epoch: int, epochs: int, metrics: dict[str, float], is_best: bool) -> str:
    """Return the terminal's line for one epoch."""
    width = len(str(epochs))
    speed = metrics.get("train/images_per_second")
    return (
        f"epoch {epoch:{width}d}/{epochs}  train loss {metrics['train/loss']:.4f}  val loss {metrics['val/loss']:.4f}  "
        f"F1 {metrics['val/f1_macro']:.4f}{'*' if is_best else ' '}  lr {metrics['train/lr']:.2e}  "
        f"{'-' if speed is None else f'{speed:,.0f}'} images/s"
    )
