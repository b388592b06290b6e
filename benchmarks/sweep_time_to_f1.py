"""Time until a sweep finds a good network: `python benchmarks/sweep_time_to_f1.py`.

Compares a pruned, asynchronous sweep with one that is neither. Both engines search the same space
on the same subset of Fashion-MNIST with the same sampler seeds, 2 workers and at most 27 epochs per
trial, as a user types it (`train.py --multirun`).
upstream  `hydra/sweeper=optuna`: TPE with its defaults, no pruning, batches of two that wait for
          the slower trial. It runs on our warm workers, which are faster than its own launchers, so
          only barrier, pruning and sampler settings differ.
ours      `tpe_async` and ASHA with `bootstrap_count=2`, which stops the first trial of a rung.
          Otherwise the first configuration trains to its end however bad it is.
For each seed, upstream runs first, to its end. The target is its final macro F1 minus 0.5 points.
Ours stops when it reaches the target or has used upstream's whole budget of epochs or seconds.

Counts the epochs of all trials in the order in which they ended, up to the first one whose
validation F1 reaches the target, and the seconds from the first trial's start until then (start-up
is left out for both). If a seed of ours never reaches the target, it counts with the whole budget.
The ratio is upstream's mean over ours; its interval is a bootstrap over the seeds.

`--random N` shows how hard the space is: it also trains N random configurations to their ends and
prints the share that reaches the targets, and how these ranked early. The space was fixed before
any comparison, so that about 1 in 20 reaches the target. Prints a table, then one JSON line.
"""

import argparse
import csv
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from PIL import Image
from sweep_apps.process import run_commands, sweep_versions
from sweep_tasks import SPACE, TRAINING

from visionsweep.data.fashion_mnist import load_fashion_mnist
from visionsweep.rundir.journal import read_journal

BAR = 3.0  # ratio of means, in epochs and in time
TOLERANCE = 0.005  # of macro F1: half a point
SLOTS = 2
TRAIN = Path(__file__).resolve().parent.parent / "train.py"
METRIC = "val/f1_macro"

NUM_TRAIN, NUM_VAL = 1000, 2000
RANDOM_SEED = 2000


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial and its validation macro F1."""

    time: float  # of its end, in seconds since 1970
    trial: int
    number: int
    f1: float


@dataclass(frozen=True)
class Sweep:
    """The trials of one command."""

    epochs: list[Epoch]  # of all trials, by the time of their end
    start: float  # of the first trial, in seconds since 1970
    states: Counter[str]  # number of trials per end state
    command_seconds: float  # including start-up

    def best(self) -> float:
        """Return the best macro F1."""
        return max(epoch.f1 for epoch in self.epochs)

    def seconds(self) -> float:
        """Return the time from the first trial's start to the end of the last epoch."""
        return self.epochs[-1].time - self.start

    def until(self, target: float) -> tuple[int, float] | None:
        """Return epochs and seconds until the target was reached, or None."""
        for count, epoch in enumerate(self.epochs, 1):
            if epoch.f1 >= target:
                return count, epoch.time - self.start
        return None

    def curves(self) -> dict[int, list[float]]:
        """Return the F1 of each epoch by trial number."""
        found: dict[int, list[float]] = {}
        for epoch in sorted(self.epochs, key=lambda epoch: (epoch.trial, epoch.number)):
            found.setdefault(epoch.trial, []).append(epoch.f1)
        return found


def write_subset(directory: Path, images: int) -> Path:
    """Write the same number of images per class as PNG files and return their CSV file.

    The images are chosen with a fixed seed.
    """
    dataset = load_fashion_mnist()
    targets = dataset.train.targets.numpy()
    order = np.random.default_rng(0).permutation(len(targets))
    classes = len(dataset.class_names)
    rows = [row for k in range(classes) for row in order[targets[order] == k][: images // classes]]
    directory.mkdir()
    table = directory / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for row in sorted(rows):
            Image.fromarray(dataset.train.images[row][0].numpy()).save(directory / f"{row}.png")
            writer.writerow([f"{row}.png", targets[row]])
    return table


class Commands:
    """Runs the benchmark's command lines and reads their sweeps."""

    def __init__(self, directory: Path, epochs: int) -> None:
        """``epochs``: the length of a trial that is not pruned."""
        self._directory = directory
        table = write_subset(directory / "subset", NUM_TRAIN + NUM_VAL)
        self._fixed = [
            str(TRAIN),
            "--multirun",
            "data=csv",
            f"data.path={table}",
            "data.label=label",
            "data.channels=1",
            "data.image_size=28",
            "data.cache_dir=none",
            f"split.val_fraction={NUM_VAL / (NUM_TRAIN + NUM_VAL):.6g}",
            *TRAINING,
            f"trainer.epochs={epochs}",
            "hydra/launcher=workers",
            f"hydra.launcher.n_jobs={SLOTS}",
        ]

    def upstream(self, seed: int, trials: int) -> Sweep:
        """Search with hydra-optuna-sweeper."""
        return self._run(
            f"upstream_{seed}",
            "hydra/sweeper=optuna",
            "hydra.sweeper.direction=maximize",
            f"hydra.sweeper.n_jobs={SLOTS}",
            f"hydra.sweeper.sampler.seed={seed}",
            f"hydra.sweeper.n_trials={trials}",
            # Its default ends the sweep at the first trial whose loss is NaN.
            "hydra.sweeper.max_failure_rate=1.0",
        )

    def ours(self, seed: int, trials: int, seconds: float, target: float) -> Sweep:
        """Search until it reaches the target, `seconds` are over, or all trials have ended."""
        return self._run(
            f"ours_{seed}",
            "hydra/sweeper=visionsweep",
            "hydra/sweeper/pruner=asha",
            "hydra.sweeper.pruner.bootstrap_count=2",
            f"hydra.sweeper.sampler.seed={seed}",
            f"hydra.sweeper.n_trials={trials}",
            f"hydra.sweeper.target_value={target!r}",
            f"hydra.sweeper.timeout_seconds={seconds:.1f}",
            "hydra.sweeper.max_failure_rate=1.0",
        )

    def random(self, seed: int, trials: int) -> Sweep:
        """Train random configurations to their ends."""
        return self._run(
            f"random_{seed}",
            "hydra/sweeper=visionsweep",
            "hydra/sweeper/sampler=random",
            f"hydra.sweeper.sampler.seed={seed}",
            f"hydra.sweeper.n_trials={trials}",
            "hydra.sweeper.max_failure_rate=1.0",
        )

    def _run(self, study: str, *overrides: str) -> Sweep:
        command = [*self._fixed, *SPACE, f"study={study}", *overrides]
        (run,) = run_commands([command], self._directory)
        return read_sweep(self._directory / "multirun" / study, run.seconds)


def read_sweep(sweep_dir: Path, command_seconds: float) -> Sweep:
    """Read the journals of a sweep's trials."""
    epochs, starts, states = [], [], Counter[str]()
    for run_dir in sorted(sweep_dir.glob("[0-9]*"), key=lambda path: int(path.name)):
        records = read_journal(run_dir)
        starts += [record["time"] / 1000 for record in records if record["type"] == "start"]
        ends = [record["state"] for record in records if record["type"] == "end"]
        states[ends[-1] if ends else "failed"] += 1
        epochs += [
            Epoch(
                record["time"] / 1000,
                int(run_dir.name),
                record["step"],
                float(record["values"][METRIC]),
            )
            for record in records
            if record["type"] == "metrics" and METRIC in record["values"]
        ]
    return Sweep(sorted(epochs, key=lambda epoch: epoch.time), min(starts), states, command_seconds)


@dataclass(frozen=True)
class Row:
    """Both engines with one seed, and their cost until the target."""

    seed: int
    target: float
    upstream: Sweep
    ours: Sweep
    upstream_until: tuple[int, float]  # epochs, seconds
    ours_until: tuple[int, float]
    is_reached: bool  # by ours


def compare(commands: Commands, seed: int, trials: int, epochs: int) -> Row:
    """Run both engines with one sampler seed."""
    upstream = commands.upstream(seed, trials)
    target = upstream.best() - TOLERANCE
    budget = (trials * epochs, upstream.seconds())
    # A trial has at least one epoch, so the limit on trials is never the tighter one.
    ours = commands.ours(seed, trials * epochs, budget[1], target)
    found = ours.until(target)
    is_reached = found is not None and found[0] <= budget[0]
    needed = upstream.until(target)
    assert needed is not None
    row = Row(
        seed,
        target,
        upstream,
        ours,
        needed,
        found if found is not None and is_reached else budget,
        is_reached,
    )
    print(
        f"{seed:>6}{target:>9.4f}{upstream.best():>10.4f}{ours.best():>8.4f}"
        f"{upstream.states.total():>10}{ours.states.total():>8}{ours.states['pruned']:>8}"
        f"{row.upstream_until[0]:>10}{row.ours_until[0]:>8}"
        f"{row.upstream_until[1]:>10.1f}{row.ours_until[1]:>8.1f}"
        f"{upstream.command_seconds:>10.0f}{ours.command_seconds:>8.0f}"
        f"{'' if is_reached else '  never reached'}",
        flush=True,
    )
    return row


def ratio(rows: Sequence[Row], index: int) -> dict[str, float]:
    """Return upstream's mean over ours with its 95 % interval; `index` 0: epochs, 1: seconds."""
    pairs = np.array(
        [(row.upstream_until[index], row.ours_until[index]) for row in rows], dtype=float
    )
    drawn = np.random.default_rng(0).integers(len(rows), size=(20_000, len(rows)))
    means = pairs[drawn].mean(axis=1)
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    upstream, ours = pairs.mean(axis=0)
    values = {
        "upstream": upstream,
        "ours": ours,
        "ratio": upstream / ours,
        "low": low,
        "high": high,
    }
    return {name: round(float(value), 3) for name, value in values.items()}


def benchmark(commands: Commands, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the engines seed by seed, print rows and ratios, return the JSON line's values."""
    columns = {
        "best F1": 18,
        "trials": 18,
        "": 8,
        "epochs to it": 18,
        "seconds to it": 18,
        "command, s": 18,
    }
    print(f"{'':15}" + "".join(f"{name:>{width}}" for name, width in columns.items()))
    names = f"{'upstream':>10}{'ours':>8}"
    print(f"{'seed':>6}{'target':>9}{names}{names}{'pruned':>8}{names * 3}")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    rows = [compare(commands, seed, arguments.trials, arguments.epochs) for seed in seeds]
    result: dict[str, Any] = {"seeds": len(rows), "reached": sum(row.is_reached for row in rows)}
    result["targets"] = [round(row.target, 4) for row in rows]
    for index, name in enumerate(("epochs", "seconds")):
        result[name] = found = ratio(rows, index)
        print(
            f"mean {name}: upstream {found['upstream']:.1f}, ours {found['ours']:.1f}, "
            f"ratio {found['ratio']:.2f} "
            f"(95 % interval {found['low']:.2f} to {found['high']:.2f}; bar {BAR:g})"
        )
    if arguments.random:
        result |= share(commands, arguments.random, [row.target for row in rows])
    return result


def share(commands: Commands, count: int, targets: Sequence[float]) -> dict[str, Any]:
    """Print how many random configurations reach the targets, and return the JSON line's values."""
    sample = commands.random(RANDOM_SEED, count)
    curves = sample.curves()
    best = {trial: max(curve) for trial, curve in curves.items()}
    reached = [sum(value >= target for value in best.values()) for target in targets]
    mean = statistics.mean(reached) / count
    print(
        f"random configurations that reach the targets: {reached} of {count}, "
        f"mean share {100 * mean:.1f} %"
    )
    lowest = min(targets)
    for rung in (1, 3, 9):
        until = {trial: max(curve[:rung]) for trial, curve in curves.items()}
        ranked = sorted(until, key=until.__getitem__, reverse=True)
        ranks = sorted(ranked.index(trial) + 1 for trial, value in best.items() if value >= lowest)
        print(f"  ranks at epoch {rung} of those that reach the lowest target: {ranks}")
    return {"random": count, "random_reached": reached, "share": round(mean, 4)}


@contextmanager
def working_directory(given: Path | None) -> Iterator[Path]:
    """Yield the given directory, newly made, or a temporary one if there is none."""
    if given is None:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)
    else:
        given.mkdir(parents=True)
        yield given.absolute()


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=20, help="trials of upstream's search")
    parser.add_argument("--epochs", type=int, default=27, help="epochs of a trial without pruning")
    parser.add_argument(
        "--random", type=int, default=0, metavar="N", help="also train N random configurations"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the sweeps in this new directory"
    )
    arguments = parser.parse_args()
    print(
        f"{machine() | sweep_versions()}  {NUM_TRAIN} + {NUM_VAL} images, "
        f"at most {arguments.epochs} epochs, {arguments.trials} trials with the full budget, "
        f"{SLOTS} workers, 1 thread each"
    )
    with working_directory(arguments.keep) as directory:
        commands = Commands(directory, arguments.epochs)
        result = benchmark(commands, arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
