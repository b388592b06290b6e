"""The cost of recording to the trainer: one journal record, and all files of an epoch's end."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch

from visionsweep.run.assemble import assemble
from visionsweep.run.context import RunContext
from visionsweep.run.description import resolved_config
from visionsweep.run.recorder import Recorder
from visionsweep.run.start import start_journal, write_description
from visionsweep.rundir.heartbeat import heartbeat
from visionsweep.rundir.journal import Journal
from visionsweep.sweep.trial import NoTrial
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
    """Seconds of an epoch of Fashion-MNIST; the lists have one value per trained epoch."""

    epoch: float  # all training images and validation, without the recorder
    record: list[float]  # the journal's record
    sync: list[float]  # its fsync
    recorder: list[float]  # both, and the best and last checkpoint
    start: float  # once per run: parameters, tags, data sets (digests of all images), first files
    num_images: int  # training images in a whole epoch
    values: dict[str, float]  # metrics of the last epoch


class Timer:
    """Wraps functions; `seconds` holds the time of each call."""

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
    """Train as `train.py experiment=fashion_mnist` does, but on one thread and fewer images.

    Only the first `images` training images are used; an epoch's training time is scaled up to all
    of them. Validation is complete.
    """
    torch.set_num_threads(1)
    with hydra.initialize_config_dir(str(CONF)):
        overrides = ["experiment=fashion_mnist", f"trainer.epochs={epochs}", "trainer.threads=1"]
        config = resolved_config(hydra.compose("config", overrides))
    parts = assemble(config)
    context = RunContext(run_dir, config, NoTrial(), None, {}, [], {})
    environment = write_description(context, parts)
    journal = Journal(run_dir)
    started = time.perf_counter()
    start_journal(context, parts, environment, journal)
    start = time.perf_counter() - started
    num_images = parts.train.num_images
    parts.train.indices = parts.train.indices[:images]
    recorder = Recorder(context, parts, journal)
    record, sync, whole = Timer(), Timer(), Timer()
    journal.metrics = record.around(journal.metrics)  # type: ignore[method-assign]
    journal.sync = sync.around(journal.sync)  # type: ignore[method-assign]
    timed_recorder = whole.around(recorder)
    durations: list[float] = []
    last: list[EpochResult] = []
    begun = time.perf_counter()

    def on_epoch_end(result: EpochResult) -> bool:
        nonlocal begun
        rest = time.perf_counter() - begun - result.train_seconds
        durations.append(result.train_seconds * num_images / result.num_images + rest)
        last[:] = [result]
        should_stop: bool = timed_recorder(result)
        begun = time.perf_counter()
        return should_stop

    with heartbeat(run_dir, journal, None):
        fit(parts.state, parts.train, parts.val, parts.settings, on_epoch_end=on_epoch_end)
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
    """Return the seconds of each of `number` records with these values, written in a row."""
    journal = Journal(run_dir)
    timer = Timer()
    write = timer.around(journal.metrics)
    for step in range(number):
        write(step, values)
    journal.close()
    return timer.seconds


def time_syncs(values: dict[str, float], number: int, run_dir: Path) -> list[float]:
    """Return the seconds of each of `number` flushes to disk, one record before each."""
    journal = Journal(run_dir)
    timer = Timer()
    sync = timer.around(journal.sync)
    for step in range(number):
        journal.metrics(step, values)
        sync()
    journal.close()
    return timer.seconds
