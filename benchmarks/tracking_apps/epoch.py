"""What recording costs the trainer: a record of the journal, and all that ends an epoch."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from visionsweep.run.entry import start_journal

import visionsweep.config.schema  # noqa: F401 - registers the schema
from visionsweep.run.assemble import assemble
from visionsweep.run.description import resolved_config, write_description
from visionsweep.run.recorder import Best, Recorder
from visionsweep.rundir.heartbeat import watched
from visionsweep.rundir.journal import Journal
from visionsweep.training.loop import EpochResult, fit

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
FEW = {
    "train/loss": 0.4213,
    "val/loss": 0.3127,
    "val/f1_macro": 0.8891,
    "val/accuracy": 0.8902,
    "train/lr": 0.00123,
}


@dataclass(frozen=True)
class EpochCosts:
    """Seconds of one epoch of Fashion-MNIST, and those of each write at its end."""

    epoch: float  # all training images, and validation, without the recorder
    record: list[float]  # the journal's record
    sync: list[float]  # its fsync
    recorder: list[float]  # both, and the checkpoints
    start: float  # once per run: parameters, tags, data sets (digests of all images), first files
    num_images: int  # of the training images, in a whole epoch
    values: dict[str, float]  # the last epoch's metrics


class Timer:
    """Wraps functions; `seconds` has the time of each call."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds.append(time.perf_counter() - started)

        return timed


def measure_epoch(epochs: int, images: int, run_dir: Path) -> EpochCosts:
    """Train on the first training images as `train.py experiment=fashion_mnist` does, one thread.

    The training time of an epoch is scaled up to all training images; validation is complete.
    """
    torch.set_num_threads(1)
    with hydra.initialize_config_dir(str(CONF)):
        overrides = ["experiment=fashion_mnist", f"trainer.epochs={epochs}", "trainer.threads=1"]
        config = resolved_config(hydra.compose("config", overrides))
    experiment = assemble(config)
    write_description(config, run_dir, experiment, is_resumed=False)
    journal = Journal(run_dir)
    started = time.perf_counter()
    start_journal(config, run_dir, experiment, journal)
    start = time.perf_counter() - started
    num_images = experiment.train.num_images
    experiment.train.indices = experiment.train.indices[:images]
    metric = config["objective"]["metric"]
    best = Best(config["objective"]["direction"], None, 0.0)
    recorder = Recorder(
        run_dir,
        experiment.state,
        best,
        journal,
        epochs=epochs,
        inference=experiment.inference,
        objective=metric,
    )
    record, sync, whole = Timer(), Timer(), Timer()
    journal.metrics = record.around(journal.metrics)  # type: ignore[method-assign]
    journal.sync = sync.around(journal.sync)  # type: ignore[method-assign]
    timed_recorder = whole.around(recorder)
    durations: list[float] = []
    last: list[EpochResult] = []
    begun = time.perf_counter()

    def on_epoch_end(result: EpochResult) -> str | None:
        nonlocal begun
        rest = time.perf_counter() - begun - result.train_seconds
        durations.append(result.train_seconds * num_images / result.num_images + rest)
        last[:] = [result]
        reason: str | None = timed_recorder(result)
        begun = time.perf_counter()
        return reason

    with watched(run_dir, journal, None):
        fit(
            experiment.state,
            experiment.train,
            experiment.val,
            experiment.settings,
            on_epoch_end=on_epoch_end,
        )
    journal.close()
    return EpochCosts(
        epoch=statistics.median(durations),
        record=record.seconds,
        sync=sync.seconds,
        recorder=whole.seconds,
        start=start,
        num_images=num_images,
        values=last[0].metrics,
    )


def time_records(values: dict[str, float], number: int, run_dir: Path) -> list[float]:
    """Return the seconds of each of `number` records with these values."""
    journal = Journal(run_dir)
    timer = Timer()
    write = timer.around(journal.metrics)
    for step in range(number):
        write(step, values)
    journal.close()
    return timer.seconds


def time_syncs(values: dict[str, float], number: int, run_dir: Path) -> list[float]:
    """Return the seconds of each of `number` flushes to disk, one after each record."""
    journal = Journal(run_dir)
    timer = Timer()
    sync = timer.around(journal.sync)
    for step in range(number):
        journal.metrics(step, values)
        sync()
    journal.close()
    return timer.seconds
