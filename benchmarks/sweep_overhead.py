"""Overhead of a trial: `python benchmarks/sweep_overhead.py`. Empty trials, 2 warm workers, TPE.

Runs the command line as a user types it. The study is first filled with finished trials that have
random parameters and their own directories; the sweep resumes it. Measures, from the end of the
last warm-up trial to the end of the last trial: wall time per trial, CPU time of the controller and
of both workers, and the controller's memory. Three spaces:
project      four unconditional parameters and this project's config; composing it dominates.
bare         four unconditional parameters of an app without a config.
conditional  `sweep=losses`: nine parameters, seven of them conditional; no bar.
Takes about eight minutes, mostly to fill the studies. Prints a table, then one JSON line.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import yaml
from machine import machine
from optuna.trial import FrozenTrial
from sweep_apps.process import APPS, Run, run_commands, sweep_versions

from visionsweep.rundir.layout import STUDY
from visionsweep.sweep.space.space import parse_space
from visionsweep.sweep.stored import read_stored

BARS = {1000: 100, 5000: 150}  # ms per trial, for the unconditional spaces
WORKERS = ["--multirun", "hydra/launcher=workers", "hydra.launcher.n_jobs=2"]
PROJECT = [
    str(APPS / "empty_project.py"),
    *WORKERS,
    "study=sweep",
    "tracking=none",
    "~hydra.callbacks.visionsweep",
    "hydra.sweeper.check=null",
    "hydra/sweeper/pruner=none",
]
SPACES = {
    "project": [
        *PROJECT,
        "optim.lr=tag(log,interval(1e-4,1e-1))",
        "optim.weight_decay=tag(log,interval(1e-4,1e-1))",
        "loss=focal,label_smoothing",
        "trainer.accumulate=1,2,4",
    ],
    "bare": [
        str(APPS / "empty.py"),
        *WORKERS,
        "hydra/sweeper=optuna_async",
        "hydra.sweeper.sampler.seed=0",
        "hydra.sweep.dir=multirun/sweep",
        "+a=interval(0.0,5.0)",
        "+b=tag(log,interval(1e-4,1e-1))",
        "+c=left,right",
        "+d=range(1,9)",
    ],
    "conditional": [*PROJECT, "sweep=losses"],
}
LOSSES = APPS.parents[1] / "conf" / "hydra" / "sweeper" / "losses.yaml"
DEFAULT_PARAMS = {
    "conditional": yaml.safe_load(LOSSES.read_text(encoding="utf-8"))["default_params"]
}
FIRST = 4  # trials before the study is filled


@dataclass(frozen=True)
class Cost:
    """The cost of a trial, in milliseconds, and the controller's memory in MB."""

    space: str
    trials: int  # in the study before
    wall: float
    controller_cpu: float
    workers_cpu: float
    in_worker: float  # median time from a trial's start to its end in its worker
    memory: float  # the controller's peak


def fill(space: str, sweep_dir: Path, trials: int) -> None:
    """Fill a sweep up to `trials` finished trials, each with a copy of trial 0's directory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _storage(sweep_dir)
    sqlalchemy.event.listen(storage.engine, "connect", _skip_fsync)
    storage.engine.dispose()
    (study,) = storage.get_all_studies()
    begin = storage.get_n_trials(study._study_id)
    for number, trial in enumerate(_finished(space, sweep_dir, trials - begin), begin):
        storage.create_new_trial(study._study_id, trial)
        shutil.copytree(sweep_dir / "0", sweep_dir / str(number))
    storage.engine.dispose()


def _storage(sweep_dir: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{sweep_dir / STUDY}")


def _skip_fsync(connection: Any, record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _finished(space: str, sweep_dir: Path, count: int) -> Iterator[FrozenTrial]:
    """Yield random trials of a sweep's space, as the sweep itself stores them."""
    stored = read_stored(sweep_dir)
    assert stored is not None
    searched = parse_space(None, DEFAULT_PARAMS.get(space), stored.task_overrides)
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=count))
    rng = random.Random(count)
    for _ in range(count):
        drawn = source.ask()
        searched.suggest(drawn)
        now = time.time()
        yield optuna.trial.create_trial(
            params=drawn.params,
            distributions=drawn.distributions,
            value=rng.gauss(0.0, 1.0),
            user_attrs={"sweep:notes": {"start": now, "end": now}},
            system_attrs={"tpe:relative_params:0": json.dumps(drawn.params)},
        )


def measure(
    space: str, sizes: Sequence[int], arguments: argparse.Namespace, directory: Path
) -> list[Cost]:
    """Return the cost of a trial for each size of the study."""
    sweep_dir = directory / "multirun" / "sweep"
    run_commands([[*SPACES[space], f"hydra.sweeper.n_trials={FIRST}"]], directory)
    costs = []
    for size in sizes:
        fill(space, sweep_dir, size)
        total = size + arguments.warm_up + arguments.trials
        (run,) = run_commands([[*SPACES[space], f"hydra.sweeper.n_trials={total}"]], directory)
        costs.append(_cost(space, size, run, sweep_dir, arguments.warm_up))
    return costs


def _cost(space: str, size: int, run: Run, sweep_dir: Path, warm_up: int) -> Cost:
    storage = _storage(sweep_dir)
    (study,) = storage.get_all_studies()
    notes = [
        trial.user_attrs["sweep:notes"] for trial in storage.get_all_trials(study._study_id)[size:]
    ]
    storage.engine.dispose()
    notes.sort(key=lambda note: note["end"])
    begin, end, count = notes[warm_up - 1]["end"], notes[-1]["end"], len(notes) - warm_up
    controller, workers = run.cpu_between(begin, end)
    return Cost(
        space,
        size,
        wall=1000 * (end - begin) / count,
        controller_cpu=1000 * controller / count,
        workers_cpu=1000 * workers / count,
        in_worker=1000 * statistics.median(note["end"] - note["start"] for note in notes[warm_up:]),
        memory=run.max_rss() / 1e6,
    )


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials", type=int, default=100, help="measured trials per size of the study"
    )
    parser.add_argument("--warm-up", type=int, default=10, help="trials before the measured ones")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(BARS), help="numbers of trials in the study"
    )
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    arguments = parser.parse_args()
    costs = []
    for space in arguments.spaces:
        with tempfile.TemporaryDirectory() as directory:
            costs += measure(space, sorted(arguments.sizes), arguments, Path(directory))
    print(
        f"{machine() | sweep_versions()}  {arguments.trials} empty trials, 2 warm workers, "
        "tpe_async, SQLite"
    )
    print(
        f"{'':12}{'trials':>8}{'ms per trial':>14}{'bar':>6}{'CPU ms: controller':>20}"
        f"{'2 workers':>11}{'ms in a worker':>16}{'controller MB':>15}"
    )
    for cost in costs:
        bar = "" if cost.space == "conditional" else str(BARS.get(cost.trials, ""))
        print(
            f"{cost.space:12}{cost.trials:>8,}{cost.wall:>14.1f}{bar:>6}"
            f"{cost.controller_cpu:>20.1f}{cost.workers_cpu:>11.1f}{cost.in_worker:>16.1f}"
            f"{cost.memory:>15.0f}"
        )
    result: dict[str, Any] = {}
    for cost in costs:
        figures = {
            key: round(value, 1) for key, value in vars(cost).items() if isinstance(value, float)
        }
        result.setdefault(cost.space, {})[str(cost.trials)] = figures
    print(json.dumps(result))


if __name__ == "__main__":
    main()
