"""What a race over seeds saves, and what it costs: `python benchmarks/repeats.py`.

Simulated sweeps: trials have true means, a run's value is trial + seed + noise. The seed's part is
the same for all trials (its split, for example), with a standard deviation of 0.03 or none; the
noise has 0.01, 0.02 or 0.04, as val F1 on small data has. True means, by name:
wide    as 91 random configurations of the space of `benchmarks/sweep_time_to_f1.py` ended:
        quartiles 0.05, 0.23 and 0.79, maximum 0.836.
close   0.83 minus an exponential with mean 0.02: a space in which most is well.
Each rule chooses a trial. `best`: how often it is the truly best one; `behind`: how much worse it
is on average, in points of 0.001; `runs`: how many runs were spent.
one       the best first seed.
all       all seeds for all trials, the best mean.
race      `hydra.sweeper.seeds_for=contenders`, one worker; `race x4`: four, which decide while
          others run.
top 3     all seeds for the three best by their first one.
smac      the rule of SMAC's intensification (Hutter et al. 2011): a trial gets the seeds of the
          incumbent, 1, 2, 4, ... at a time, and is out once its mean over them is lower.
Prints a table, then one JSON line.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
from machine import machine
from numpy.typing import NDArray

from visionsweep.sweep.repeats import next_trial

Table = NDArray[np.float64]  # (trials, seeds): the value of every run, also of those not made
Rule = Callable[[Table], tuple[int, int]]  # -> the trial that is chosen, runs spent

SHARED_AND_NOISE = ((0.03, 0.01), (0.03, 0.02), (0.0, 0.02), (0.03, 0.04))
QUANTILES = ((0.0, 0.25, 0.5, 0.75, 1.0), (0.03, 0.05, 0.23, 0.79, 0.836))


def one(table: Table) -> tuple[int, int]:
    """Choose the best first seed."""
    return int(table[:, 0].argmax()), len(table)


def all_seeds(table: Table) -> tuple[int, int]:
    """Choose the best mean of all seeds."""
    return int(table.mean(axis=1).argmax()), table.size


def top_3(table: Table) -> tuple[int, int]:
    """Choose the best mean of the three trials with the best first seed."""
    first = np.argsort(-table[:, 0])[:3]
    chosen = int(first[table[first].mean(axis=1).argmax()])
    return chosen, len(table) + 3 * (table.shape[1] - 1)


def race(num_workers: int) -> Rule:
    """Return the rule of `repeats.py`: runs that take equally long, `num_workers` at a time."""

    def choose(table: Table) -> tuple[int, int]:
        counts = [1] * len(table)
        while True:
            values = {n: table[n, :count].tolist() for n, count in enumerate(counts)}
            running: list[int] = []
            while len(running) < num_workers:
                number = next_trial(values, table.shape[1], "maximize", running)
                if number is None:
                    break
                running.append(number)
            if not running:
                break
            for number in running:
                counts[number] += 1
        complete = [n for n, count in enumerate(counts) if count == table.shape[1]]
        return max(complete, key=lambda n: table[n].mean()), sum(counts)

    return choose


def smac(table: Table) -> tuple[int, int]:
    """Choose the incumbent at the end; it has all its seeds by then."""
    incumbent, known, runs = 0, 1, 1
    for challenger in range(1, len(table)):
        if known < table.shape[1]:
            known, runs = known + 1, runs + 1
        own, step = 0, 1
        while own < known:
            more = min(step, known - own)
            own, runs, step = own + more, runs + more, 2 * step
            if table[challenger, :own].mean() < table[incumbent, :own].mean():
                break
        else:
            incumbent = challenger
    return incumbent, runs + table.shape[1] - known


RULES: dict[str, Rule] = {
    "one": one,
    "all": all_seeds,
    "race": race(1),
    "race x4": race(4),
    "top 3": top_3,
    "smac": smac,
}


def means(kind: str, count: int, rng: np.random.Generator) -> Table:
    """Return the true means of `count` trials."""
    if kind == "wide":
        return np.interp(rng.uniform(size=count), *QUANTILES)
    return 0.83 - rng.exponential(0.02, count)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=1000, help="per row of the table")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    found = []
    print(f"{args.sweeps} sweeps of {args.trials} trials, at most {args.seeds} seeds each")
    print(
        f"{'means':6} {'shared':>6} {'noise':>5}  {'rule':8} {'best':>5} {'behind':>13} {'runs':>6}"
    )
    for kind in ("wide", "close"):
        for shared, noise in SHARED_AND_NOISE:
            results: dict[str, list[tuple[bool, float, int]]] = {name: [] for name in RULES}
            for _ in range(args.sweeps):
                true = means(kind, args.trials, rng)
                shape = args.trials, args.seeds
                table = true[:, None] + rng.normal(0, shared, args.seeds)
                table = table + rng.normal(0, noise, shape)
                for name, rule in RULES.items():
                    chosen, runs = rule(table)
                    is_best = chosen == int(true.argmax())
                    results[name].append((is_best, true.max() - true[chosen], runs))
            for name, rows in results.items():
                best, behind, runs = np.mean(rows, axis=0).tolist()
                error = float(np.std([row[1] for row in rows]) / len(rows) ** 0.5)
                print(
                    f"{kind:6} {shared:6} {noise:5}  {name:8} {best:5.2f} "
                    f"{1000 * behind:6.2f} +- {1000 * error:3.1f} {runs:6.1f}",
                    flush=True,
                )
                found.append(
                    {"means": kind, "shared": shared, "noise": noise, "rule": name}
                    | {"best": best, "behind": behind, "error": error, "runs": runs}
                )
    print(json.dumps({"benchmark": "repeats", **vars(args), "rows": found, "machine": machine()}))


if __name__ == "__main__":
    main()
