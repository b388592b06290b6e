"""Idle time of a sweep's workers: `python benchmarks/sweep_idle.py`.

Trials of uneven length on 2 workers, run in turn by three engines:
ours        the sweeper and launcher of this project.
upstream    hydra-optuna-sweeper with its joblib launcher, which runs batches of two.
workaround  the one that upstream's maintainers recommend (#3091): two processes of upstream's
            sweeper with `n_jobs=1` and Hydra's basic launcher, which share a storage. Each has its
            own sweep directory and runs half of the trials, since upstream's `n_trials` is not a
            total; so one process may finish early.
All search the same four parameters with TPE. The k-th trial to start has the k-th of the same
lengths, drawn log-normal (sigma 0.7) with a fixed seed.

A trial sleeps, or computes with `--spin`. Sleeping measures only how quickly trials are submitted,
not how two trials and a controller share the cores. A trial records its own start and end, so
composing, pickling and Hydra's work around a job count as idle. `busy` is the share of two workers'
time, from the first trial's start to the last trial's start; `gap` is the median time from the end
of a worker's trial to the start of its next. The makespan runs from the first start to the last
end; `whole` is the command including its start-up. Takes about six minutes. Prints a table, then
one JSON line. Needs upstream's joblib launcher: `pip install -e ".[bench]"`.
"""

import argparse
import importlib.util
import itertools
import json
import math
import random
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import optuna
from machine import machine
from sweep_apps.process import APPS, run_commands, sweep_versions

BAR = 0.97  # our share of busy time
SIGMA = 0.7
SLOTS = 2
ENGINES = ("ours", "upstream", "workaround")
SPACE = [
    "+a=interval(0.0,5.0)",
    "+b=tag(log,interval(1e-4,1e-1))",
    "+c=left,right",
    "+d=range(1,9)",
]


@dataclass(frozen=True)
class Figures:
    """One engine in one round, in seconds; `busy` is a share."""

    busy: float
    gap: float
    makespan: float
    whole: float


def draw_lengths(trials: int, mean_seconds: float, seed: int) -> list[float]:
    """Return trial lengths whose mean is exactly `mean_seconds`."""
    rng = random.Random(seed)
    drawn = [rng.lognormvariate(0.0, SIGMA) for _ in range(trials)]
    return [mean_seconds * trials * length / math.fsum(drawn) for length in drawn]


def commands(engine: str, trials: int, directory: Path) -> list[list[str]]:
    """Return the commands of an engine, which run at the same time."""
    app = [str(APPS / "waiting.py"), "--multirun", *SPACE]
    if engine == "ours":
        ours = [
            *app,
            "hydra/sweeper=optuna_async",
            "hydra.sweeper.sampler.seed=0",
            f"hydra.sweeper.n_trials={trials}",
            "hydra/launcher=workers",
            f"hydra.launcher.n_jobs={SLOTS}",
            "hydra.sweep.dir=ours",
        ]
        return [ours]
    if engine == "upstream":
        upstream = [
            *app,
            "hydra/sweeper=optuna",
            "hydra.sweeper.sampler.seed=0",
            f"hydra.sweeper.n_trials={trials}",
            f"hydra.sweeper.n_jobs={SLOTS}",
            "hydra/launcher=joblib",
            f"hydra.launcher.n_jobs={SLOTS}",
            "hydra.sweep.dir=upstream",
        ]
        return [upstream]
    storage = f"sqlite:///{directory / 'shared.db'}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Create the tables here; otherwise both processes try to.
    optuna.create_study(study_name="shared", storage=storage)
    shares = [trials // SLOTS + (index < trials % SLOTS) for index in range(SLOTS)]
    return [
        [
            *app,
            "hydra/sweeper=optuna",
            f"hydra.sweeper.sampler.seed={index}",
            "hydra.sweeper.n_jobs=1",
            f"hydra.sweeper.storage={storage}",
            "hydra.sweeper.study_name=shared",
            f"hydra.sweeper.n_trials={share}",
            f"hydra.sweep.dir=workaround_{index}",
        ]
        for index, share in enumerate(shares)
    ]


def measure(engine: str, lengths: list[float], spin: bool, directory: Path) -> Figures:
    """Run one engine with trials of the given lengths."""
    directory.mkdir()
    times_file, lengths_file = directory / "times.jsonl", directory / "lengths.json"
    lengths_file.write_text(json.dumps(lengths), encoding="utf-8")
    given = [f"+times={times_file}", f"+lengths={lengths_file}", f"+spin={str(spin).lower()}"]
    runs = run_commands(
        [[*command, *given] for command in commands(engine, len(lengths), directory)], directory
    )
    starts, ends, workers = _read(times_file)
    if sorted(starts) != sorted(ends) or len(starts) != len(lengths):
        raise SystemExit(
            f"{engine}: {len(starts)} trials started, {len(ends)} ended, expected {len(lengths)}"
        )
    first, last = min(starts.values()), max(starts.values())
    busy = math.fsum(max(0.0, min(ends[i], last) - starts[i]) for i in starts)
    gaps = [starts[j] - ends[i] for indices in workers for i, j in itertools.pairwise(indices)]
    return Figures(
        busy=busy / (SLOTS * (last - first)),
        gap=statistics.median(gaps),
        makespan=max(ends.values()) - first,
        whole=max(run.seconds for run in runs),
    )


def _read(path: Path) -> tuple[dict[int, float], dict[int, float], list[list[int]]]:
    """Return starts and ends by trial index, and the trial indices of each process in order."""
    times: dict[str, dict[int, float]] = {"start": {}, "end": {}}
    workers: dict[int, list[int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        times[record["event"]][record["index"]] = record["time"]
        if record["event"] == "start":
            workers.setdefault(record["pid"], []).append(record["index"])
    return times["start"], times["end"], list(workers.values())


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--mean-seconds", type=float, default=3.0)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--spin", action="store_true", help="trials compute instead of sleeping")
    arguments = parser.parse_args()
    if (
        "upstream" in arguments.engines
        and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None
    ):
        raise SystemExit(
            'upstream\'s joblib launcher is missing: pip install -e ".[bench]"; or outside this '
            'environment: pip install --no-deps --target DIR "hydra-joblib-launcher>=1.4.0rc3" '
            "joblib, then set PYTHONPATH=DIR"
        )
    engines = arguments.engines
    measured: dict[str, list[Figures]] = {engine: [] for engine in engines}
    ideal = []
    with tempfile.TemporaryDirectory() as directory:
        for index in range(arguments.rounds):
            lengths = draw_lengths(arguments.trials, arguments.mean_seconds, seed=index)
            ideal.append(math.fsum(lengths) / SLOTS)
            for engine in engines[index % len(engines) :] + engines[: index % len(engines)]:
                place = Path(directory) / f"{engine}_{index}"
                measured[engine].append(measure(engine, lengths, arguments.spin, place))
    print_table(measured, ideal, arguments)


def print_table(
    measured: dict[str, list[Figures]], ideal: list[float], arguments: argparse.Namespace
) -> None:
    """Print medians with their range, and the JSON line of medians."""
    kind = "that compute" if arguments.spin else "that sleep"
    print(
        f"{machine() | sweep_versions()}  {arguments.trials} trials {kind}, "
        f"mean {arguments.mean_seconds:g} s, log-normal with sigma {SIGMA}, {SLOTS} workers, "
        f"{arguments.rounds} rounds, median (min..max)"
    )
    print(
        f"{'':12}{'busy, %':>22}{'gap, ms':>26}{'makespan, s':>22}{'of the ideal':>14}"
        f"{'whole command, s':>22}"
    )
    result: dict[str, dict[str, float]] = {
        "ideal": {"makespan": round(statistics.median(ideal), 2)}
    }
    for engine, figures in measured.items():
        busy, gap, makespan, whole = (
            [getattr(f, key) for f in figures] for key in ("busy", "gap", "makespan", "whole")
        )
        ratio = statistics.median(m / i for m, i in zip(makespan, ideal, strict=True))
        shares = _spread([100 * value for value in busy]), _spread([1000 * value for value in gap])
        print(
            f"{engine:12}{shares[0]:>22}{shares[1]:>26}{_spread(makespan):>22}{ratio:>14.3f}"
            f"{_spread(whole):>22}"
        )
        result[engine] = {
            "busy_share": round(statistics.median(busy), 4),
            "gap_ms": round(1000 * statistics.median(gap), 1),
            "makespan": round(statistics.median(makespan), 2),
            "of_ideal": round(ratio, 3),
            "whole": round(statistics.median(whole), 2),
        }
    print(
        f"ideal makespan (sum of all lengths over {SLOTS}): {_spread(ideal)} s; "
        f"bar for ours: busy {100 * BAR:.0f} %"
    )
    print(json.dumps(result))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}..{max(values):.1f})"


if __name__ == "__main__":
    main()
