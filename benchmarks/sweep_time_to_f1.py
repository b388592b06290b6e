"""Epochs until a search finds a good network: `python benchmarks/sweep_time_to_f1.py`.

Searches the same space on the same data (sweep_tasks.py) with the same training function, 2 workers
and at most 27 epochs per trial (search_rivals/searches.py: what each method is):

    python benchmarks/sweep_time_to_f1.py --target 0.8296           # thaw,optuna,ray
    python benchmarks/sweep_time_to_f1.py --methods upstream,asha   # upstream sets the target

Without --target, upstream runs first for each seed, `--trials` of them to their ends; the target is
its best macro F1 minus 0.5 points, and its epochs are the limit of the others. Every other search
ends as soon as it reaches the target, or after `--max-epochs`.

Counts the epochs of all trials in the order in which they ended, up to the first one whose
validation F1 reaches the target, and the seconds from the first trial's start until then (start-up
is left out). A search that does not reach it counts with the limit, marked >=: its true cost is
higher. The ratio is the mean of the better rival over ours (the first of thaw and asha); its
interval is a bootstrap over the seeds, in which each draw has its own better rival.

With --out FILE each result is kept at once, and the same command goes on where it was interrupted.
`--random N` also trains N random configurations to their ends, and prints the share that reaches
the targets. Prints a table, then one JSON line.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from search_rivals.searches import METHODS, SLOTS, Search
from sweep_apps.process import sweep_versions
from sweep_epochs import Sweep
from sweep_tasks import EPOCHS, make_task

TOLERANCE = 0.005  # of macro F1: half a point
RANDOM_SEED = 2000
OURS = ("first", "thaw", "asha")


@dataclass(frozen=True)
class Result:
    """What one search cost until the target."""

    method: str
    seed: int
    target: float
    epochs: int  # the limit if the target was not reached
    seconds: float
    is_reached: bool
    best: float  # F1 until then
    trials: int


def result_of(method: str, seed: int, target: float, cap: int, sweep: Sweep) -> Result:
    """Return the cost of a search; `cap` epochs if it took more to reach the target."""
    needed = sweep.until(target)
    is_reached = needed is not None and needed <= cap
    epochs = needed if needed is not None and is_reached else cap
    spent = sweep.epochs[:epochs]
    return Result(
        method,
        seed,
        round(target, 4),
        epochs,
        round(sweep.seconds(epochs), 1),
        is_reached,
        round(max(epoch.f1 for epoch in spent), 4),
        len({epoch.trial for epoch in spent}),
    )


class Results:
    """The results so far, in a file if there is one."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, dict(settings)
        self.found: list[Result] = []
        if path is not None and path.exists():
            stored = json.loads(path.read_text())
            if stored["settings"] != self._settings:
                raise SystemExit(
                    f"{path}: has results of {stored['settings']}, not of {self._settings}; "
                    "choose another --out"
                )
            self.found = [Result(**values) for values in stored["results"]]

    def get(self, method: str, seed: int) -> Result | None:
        """Return the result of a search that has run."""
        return next((r for r in self.found if (r.method, r.seed) == (method, seed)), None)

    def add(self, result: Result) -> None:
        """Keep a result."""
        self.found.append(result)
        if self._path is not None:
            stored = {"settings": self._settings, "results": [asdict(r) for r in self.found]}
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(stored, indent=1))
            new.replace(self._path)


def compare(search: Search, results: Results, seed: int, arguments: argparse.Namespace) -> None:
    """Run what has not run of one seed, and print its row."""
    target, cap = arguments.target, arguments.max_epochs
    for method in arguments.methods:
        result = results.get(method, seed)
        if result is None and target is None:  # upstream, which is the first
            sweep = search.run(method, seed, arguments.trials)
            result = result_of(
                method, seed, sweep.best() - TOLERANCE, arguments.trials * EPOCHS, sweep
            )
            results.add(result)
        elif result is None:
            sweep = search.run(method, seed, target=target, cap=cap)
            result = result_of(method, seed, target, cap, sweep)
            results.add(result)
        target = result.target
        mark = "" if result.is_reached else ">="
        print(
            f"{seed:>5}{target:>9.4f}  {method:10}{mark + str(result.epochs):>8}"
            f"{mark + f'{result.seconds:.0f}':>9}{result.trials:>8}{result.best:>9.4f}",
            flush=True,
        )


def summary(results: Sequence[Result], methods: Sequence[str]) -> dict[str, Any]:
    """Print means and ratios of the seeds that all methods have; return the JSON line's values."""
    by_method = {m: {r.seed: r for r in results if r.method == m} for m in methods}
    seeds = sorted(set.intersection(*(set(found) for found in by_method.values())))
    rows = {m: [found[seed] for seed in seeds] for m, found in by_method.items()}
    values: dict[str, Any] = {"seeds": seeds}
    values["reached"] = {m: sum(r.is_reached for r in rows[m]) for m in methods}
    values["targets"] = sorted({r.target for row in rows.values() for r in row})
    for unit in ("epochs", "seconds"):
        costs = np.array([[getattr(r, unit) for r in rows[m]] for m in methods], dtype=float)
        means, medians = costs.mean(axis=1), np.median(costs, axis=1)
        drawn = np.random.default_rng(0).integers(len(seeds), size=(20_000, len(seeds)))
        in_draws = costs[:, drawn].mean(axis=2)  # (methods, draws)
        print(f"{unit} until the target, {len(seeds)} seeds")
        values[unit] = {}
        for index, method in enumerate(methods):
            mark = "" if values["reached"][method] == len(seeds) else ">="
            low, high = np.quantile(in_draws[index], [0.025, 0.975])
            print(
                f"  {method:10}mean {mark + f'{means[index]:.1f}':>7} ({low:.0f} to {high:.0f}), "
                f"median {medians[index]:.1f}, {values['reached'][method]} of {len(seeds)} reached"
            )
            values[unit][method] = round(float(means[index]), 1)
        ours = [index for index, method in enumerate(methods) if method in OURS]
        rivals = [index for index, method in enumerate(methods) if method not in OURS]
        if ours and rivals:
            better = rivals[int(means[rivals].argmin())]
            ratio = means[better] / means[ours[0]]
            ratios = in_draws[rivals].min(axis=0) / in_draws[ours[0]]
            low, high = np.quantile(ratios, [0.025, 0.975])
            print(
                f"  {methods[better]} needs {ratio:.2f} times as many as {methods[ours[0]]} "
                f"(95 % interval {low:.2f} to {high:.2f})"
            )
            values[unit]["ratio"] = [round(float(x), 2) for x in (ratio, low, high)]
    return values


def share(search: Search, count: int, targets: Sequence[float]) -> dict[str, Any]:
    """Print how many random configurations reach the targets, and return the JSON line's values."""
    curves = search.run("random", RANDOM_SEED, count).curves()
    reached = [sum(max(curve) >= target for curve in curves.values()) for target in targets]
    print(f"random configurations that reach the targets {targets}: {reached} of {count}")
    return {"random": count, "random_reached": reached}


def _methods(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(METHODS)}, got {text}")
    return names


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="fashion", choices=["fashion", "longtail", "clothing"])
    parser.add_argument("--clothing", type=Path, metavar="DIR", help="the photographs")
    parser.add_argument("--methods", type=_methods, default=METHODS[:3], help=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--target", type=float, help="macro F1; default: set by upstream")
    parser.add_argument("--max-epochs", type=int, help="default: 250, or those of upstream")
    parser.add_argument("--trials", type=int, default=20, help="of upstream without --target")
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, help="JSON file with a result per search")
    arguments = parser.parse_args()
    if arguments.target is None and arguments.methods[0] != "upstream":
        parser.error("--target: expected a macro F1, or upstream as the first of --methods")
    if (arguments.task == "clothing") != (arguments.clothing is not None):
        parser.error("--clothing: expected the folder of photographs with --task clothing only")
    if arguments.max_epochs is None:
        by_upstream = arguments.trials * EPOCHS
        arguments.max_epochs = by_upstream if arguments.target is None else 250
    versions = machine() | sweep_versions()
    with suppress(metadata.PackageNotFoundError):
        versions["ray"] = metadata.version("ray")
    names = ("task", "target", "max_epochs", "trials")
    settings = {name: getattr(arguments, name) for name in names}
    results = Results(arguments.out, settings)
    print(f"{versions}  {settings}, at most {EPOCHS} epochs, {SLOTS} workers, 1 thread each")
    print(f"{'seed':>5}{'target':>9}  {'':10}{'epochs':>8}{'seconds':>9}{'trials':>8}{'F1':>9}")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with tempfile.TemporaryDirectory() as name:
        task = make_task(arguments.task, Path(name) / "data", arguments.clothing)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as directory:
                compare(Search(task, Path(directory)), results, seed, arguments)
        asked = [r for r in results.found if r.seed in seeds and r.method in arguments.methods]
        values = settings | summary(asked, arguments.methods)
        if arguments.random:
            values |= share(Search(task, Path(name)), arguments.random, values["targets"])
    print(json.dumps(values | {"versions": versions}))


if __name__ == "__main__":
    main()
