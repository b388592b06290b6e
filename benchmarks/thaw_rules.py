"""Which trial to train next: rules replayed on learning curves of real runs.

    python benchmarks/thaw_rules.py CURVES.json [CURVES.json ...]

The files are of learning_curves.py. A draw puts the configurations of a file in random order; the
target is what 20 of them, trained to their ends, reach, minus 0.005. A rule then spends one epoch
at a time, on a trial that it has begun or on the next configuration. Prints the epochs until the
target is reached: mean, median and 90 % quantile over the draws, all rules on the same draws. There
is no sampler here: configurations come at random, as in the first ten trials of a sweep.

First it prints the best final value of each file, and how far the ranks after 1, 3 and 9 epochs are
those at the end (Spearman): what a schedule changes.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from visionsweep.sweep.thaw import Curve, Thaw, choose

TOLERANCE = 0.005
NEW = -1
Curves = dict[int, list[float]]  # of the trials that were begun: best F1 so far, epoch by epoch
Rule = Callable[[Curves, int], int]  # curves, length of a trial -> a trial to go on with, or NEW


def random_search(curves: Curves, length: int) -> int:
    """One configuration after the other, to its end."""
    return next((i for i, c in curves.items() if len(c) < length), NEW)


def asha_stops(rungs: Sequence[int] = (1, 3, 9), eta: int = 3, bootstrap: int = 2) -> Rule:
    """ASHA that stops: what is not among the best third at a rung is gone for good."""
    reached: dict[int, list[int]] = {rung: [] for rung in rungs}
    gone: set[int] = set()

    def is_stopped(curves: Curves, i: int) -> bool:
        epoch = len(curves[i])
        if epoch in rungs and i not in reached[epoch]:
            reached[epoch].append(i)
            values = sorted((curves[j][epoch - 1] for j in reached[epoch]), reverse=True)
            worst = values[max(len(values) // eta, 1) - 1]
            if len(values) < bootstrap or curves[i][epoch - 1] < worst:
                gone.add(i)
        return i in gone

    def rule(curves: Curves, length: int) -> int:
        for i, curve in curves.items():
            if len(curve) < length and not is_stopped(curves, i):
                return i
        return NEW

    return rule


def promotion(rungs: Sequence[int], share: float) -> Rule:
    """ASHA that pauses: the highest rung with a trial among its best goes first."""

    def rule(curves: Curves, length: int) -> int:
        levels = [*rungs, length]
        for i, c in curves.items():  # between rungs
            if len(c) not in levels:
                return i
        for level in reversed(levels[:-1]):
            reached = [i for i, c in curves.items() if len(c) >= level]
            ranked = sorted(reached, key=lambda i: -curves[i][level - 1])
            for i in ranked[: int(len(reached) * share)]:
                if len(curves[i]) == level:
                    return i
        return NEW

    return rule


def thaw(screen: int, new_every: int, slope: float) -> Rule:
    """The product's rule: value plus recent gain; now and then a new configuration."""
    settings = Thaw(screen, new_every, slope)

    def rule(curves: Curves, length: int) -> int:
        known = {i: Curve(c, is_waiting=len(c) < length) for i, c in curves.items()}
        chosen = choose(known, settings, can_draw=True)
        return NEW if chosen is None else chosen

    return rule


RULES: dict[str, Callable[[], Rule]] = {
    "random search": lambda: random_search,
    "asha, stops": asha_stops,
    "promotion 1,3,9 third": lambda: promotion((1, 3, 9), 1 / 3),
    "promotion 1,2,3,5,8,12,18 half": lambda: promotion((1, 2, 3, 5, 8, 12, 18), 1 / 2),
    "thaw 8, 3, 3": lambda: thaw(8, 3, 3),
    "thaw 8, 3, 1": lambda: thaw(8, 3, 1),
    "thaw 8, 3, 0": lambda: thaw(8, 3, 0),
    "thaw 8, 2, 1": lambda: thaw(8, 2, 1),
    "thaw 8, 6, 1": lambda: thaw(8, 6, 1),
    "thaw 4, 3, 1": lambda: thaw(4, 3, 1),
    "thaw 12, 3, 1": lambda: thaw(12, 3, 1),
}


def replay(rule: Rule, bank: np.ndarray, order: np.ndarray, target: float) -> int:
    """Return the epochs until a trial reaches the target; at most those of the bank (N, T)."""
    curves: Curves = {}
    for spent in range(bank.size):
        choice = rule(curves, bank.shape[1])
        if choice == NEW:
            if len(curves) == len(order):
                waiting = [i for i, c in curves.items() if len(c) < bank.shape[1]]
                if not waiting:
                    break
                choice = max(waiting, key=lambda i: curves[i][-1])
            else:
                choice = len(curves)
                curves[choice] = []
        curve = curves[choice]
        curve.append(float(bank[order[choice], len(curve)]))
        if curve[-1] >= target:
            return spent + 1
    return bank.size


def load_bank(path: Path) -> np.ndarray:
    """Return the best value so far of each configuration and epoch (N, T)."""
    curves = json.loads(path.read_text())["curves"]
    length = max(map(len, curves))
    full = [c + [c[-1] if c else 0.0] * (length - len(c)) for c in curves]
    return np.maximum.accumulate(np.nan_to_num(np.array(full)), axis=1)


def early_ranks(banks: Iterable[np.ndarray]) -> dict[str, list[float]]:
    """Return the rows on the files themselves: best value, and rank correlations with the end."""
    rows: dict[str, list[float]] = {}
    for bank in banks:
        rows.setdefault("best final value", []).append(float(bank[:, -1].max()))
        for epoch in (1, 3, 9):
            found = spearmanr(bank[:, epoch - 1], bank[:, -1]).statistic
            rows.setdefault(f"rank correlation after epoch {epoch}", []).append(float(found))
    return rows


def main() -> None:
    """Replay every rule on every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=300)
    arguments = parser.parse_args()
    banks = {path.stem: load_bank(path) for path in arguments.files}
    print(f"{'':34}" + "".join(f"{name:>24}" for name in banks))
    for name, values in early_ranks(banks.values()).items():
        print(f"{name:34}" + "".join(f"{value:24.3f}" for value in values))
    for name, make in RULES.items():
        cells = []
        for bank in banks.values():
            rng = np.random.default_rng(0)
            needed = []
            for _ in range(arguments.draws):
                order = rng.permutation(len(bank))
                full = rng.choice(len(bank), 20, replace=False)
                target = bank[full, -1].max() - TOLERANCE
                needed.append(replay(make(), bank, order, target))
            mean, median, high = np.mean(needed), np.median(needed), np.quantile(needed, 0.9)
            cells.append(f"{mean:10.0f}{median:7.0f}{high:7.0f}")
        print(f"{name:34}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
