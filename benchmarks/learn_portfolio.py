"""Learn which configurations are good on many data sets, for sweeps to try them first.

    python benchmarks/learn_portfolio.py train CURVES.jsonl       # resumes; one thread
    python benchmarks/learn_portfolio.py learn CURVES.jsonl       # writes sweep/portfolio.yaml

`train` trains the same quasi-random configurations of a small network on every data set of
portfolio_data.py, and appends the validation macro F1 of each epoch. `learn` writes the best F1 of
each, from which a sweep chooses greedily (`visionsweep.sweep.portfolio`), and prints how good that
is on a data set that was left out, with all others of its source.
"""

import argparse
import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

import hydra
import torch
import yaml
from portfolio_data import DataSet, write_data_sets
from scipy.stats import qmc

from visionsweep.errors import TrainingError
from visionsweep.run.assemble import assemble
from visionsweep.run.description import resolved_config
from visionsweep.sweep.portfolio import FILE, greedy_order
from visionsweep.training.loop import EpochResult, fit

CONF = Path(__file__).resolve().parent.parent / "conf"
EPOCHS = 12
FIXED = ["model=cnn", "scheduler=none", "trainer.threads=1", "tracking=none"]
LR_RANGES = {"adamw": (1e-4, 1e-1), "sgd": (1e-3, 1.0)}  # Adam's steps do not scale with gradients
OPTIMIZERS = ("adamw", "adamw", "sgd")  # the default preset has AdamW alone
SIZES = (1, 2, 3, 6)  # of the portfolios that are compared
CHOICES: dict[str, tuple[Any, ...]] = {
    "loss": ("cross_entropy", "label_smoothing", "focal", "ce_f1"),
    "augment": ("none", "basic"),
    "trainer.batch_size": (16, 32, 64),
    "trainer.accumulate": (1, 2, 4),
    "model.hidden": (16, 64, 256),
}


def configurations(count: int) -> list[dict[str, Any]]:
    """Return the first ``count`` points of a scrambled Halton sequence, as configurations."""
    points = qmc.Halton(d=4 + len(CHOICES), seed=0).random(count)
    found = []
    for optimizer, lr, decay, drop, *rest in points.tolist():
        name = OPTIMIZERS[int(optimizer * len(OPTIMIZERS))]
        low, high = LR_RANGES[name]
        configuration: dict[str, Any] = {
            "optim": name,
            "optim.lr": _rounded(low * (high / low) ** lr),
            "optim.weight_decay": _rounded(1e-5 * (0.3 / 1e-5) ** decay),
            "model.drop_rate": round(0.6 * drop, 2),
        }
        for (key, values), share in zip(CHOICES.items(), rest, strict=True):
            configuration[key] = values[int(share * len(values))]
        found.append(configuration)
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def train(out: Path, count: int) -> None:
    """Train every configuration on every data set, and append a line per pair."""
    done = {(row["data"], row["number"]) for row in read_rows(out)}
    with tempfile.TemporaryDirectory() as directory, out.open("a", encoding="utf-8") as file:
        data_sets = write_data_sets(Path(directory))
        for number, configuration in enumerate(configurations(count)):
            for data in data_sets:
                if (data.name, number) in done:
                    continue
                started = time.perf_counter()
                curve = f1_curve(data, configuration)
                seconds = round(time.perf_counter() - started, 2)
                row = {"data": data.name, "source": data.source, "number": number}
                row |= {"configuration": configuration, "f1": curve, "seconds": seconds}
                file.write(json.dumps(row) + "\n")
                file.flush()


def f1_curve(data: DataSet, configuration: dict[str, Any]) -> list[float]:
    """Return the validation macro F1 of each epoch; it ends early if the loss is not finite."""
    chosen = [f"{key}={value}" for key, value in configuration.items()]
    with hydra.initialize_config_dir(str(CONF)):
        config = hydra.compose(
            "config", [*FIXED, *data.overrides, f"trainer.epochs={EPOCHS}", *chosen]
        )
    parts = assemble(resolved_config(config), keep_dataset=True)
    curve: list[float] = []

    def note(result: EpochResult) -> bool:
        curve.append(round(result.objective, 4))
        return False

    # A configuration that diverges is as good as its best epoch before.
    with contextlib.suppress(TrainingError):
        fit(parts.state, parts.train, parts.val, parts.settings, on_epoch_end=note)
    return curve


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows trained so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def learn(rows: list[dict[str, Any]]) -> None:
    """Write the scores of the configurations that were trained on every data set; print tables."""
    sources = {row["data"]: row["source"] for row in rows}
    best = {(row["number"], row["data"]): max(row["f1"], default=0.0) for row in rows}
    params = {row["number"]: row["configuration"] for row in rows}
    numbers = [n for n in sorted(params) if all((n, data) in best for data in sources)]
    scores = [[best[n, data] for data in sources] for n in numbers]
    family = {
        "applies_to": {"model._target_": "visionsweep.models.cnn.CNN"},
        "same": ["optim"],
        "data_sets": list(sources),
        "configurations": [
            {"params": params[n], "scores": row} for n, row in zip(numbers, scores, strict=True)
        ],
    }
    seconds = sum(row["seconds"] for row in rows)
    header = (
        "# Best validation macro F1 of the same configurations on several small data sets. Do not\n"
        "# edit: `python benchmarks/learn_portfolio.py` trained and wrote them.\n"
        f"# {len(numbers)} configurations of a Halton sequence x {len(sources)} data sets of about "
        f"800 training images, {EPOCHS} epochs,\n"
        f"# constant lr, seed 0, PyTorch {torch.__version__.partition('+')[0]} on a CPU, one "
        f"thread: {seconds / 60:.0f} minutes.\n"
    )
    text = yaml.safe_dump([family], sort_keys=False, default_flow_style=None, width=100)
    FILE.write_text(header + text, encoding="utf-8")
    for title, name in (("all", None), ("AdamW only", "adamw")):
        kept = [i for i, n in enumerate(numbers) if name in (None, params[n]["optim"])]
        print(f"\n{title}: {len(kept)} configurations")
        print_left_out([scores[i] for i in kept], sources)
        for i in greedy_order([scores[i] for i in kept])[: max(SIZES)]:
            print(numbers[kept[i]], params[numbers[kept[i]]])


def print_left_out(scores: list[list[float]], sources: dict[str, str]) -> None:
    """Print, for each data set, the best F1 of portfolios that were learned without its source."""
    print(f"| data set | {' | '.join(f'{k} first' for k in SIZES)} | best of all |")
    table = []
    for column, source in enumerate(sources.values()):
        others = [i for i, other in enumerate(sources.values()) if other != source]
        order = greedy_order([[row[i] for i in others] for row in scores])
        values = [row[column] for row in scores]
        pairs = [(max(values[i] for i in order[:k]), expected_best(values, k)) for k in SIZES]
        table.append([*pairs, (max(values), max(values))])
    means = [
        tuple(fmean(side) for side in zip(*cells, strict=True))
        for cells in zip(*table, strict=True)
    ]
    for name, cells in zip([*sources, "mean"], [*table, means], strict=True):
        shown = [f"{ours:.3f} ({random:.3f})" for ours, random in cells[:-1]]
        print(f"| {name} | {' | '.join(shown)} | {cells[-1][0]:.3f} |")


def expected_best(values: Sequence[float], count: int) -> float:
    """Return the mean of the largest of `count` values over all ways to draw them."""
    ordered = sorted(values)
    ways = [comb(i, count - 1) for i in range(len(ordered))]  # in which the i-th is the largest
    return sum(w * value for w, value in zip(ways, ordered, strict=True)) / comb(
        len(ordered), count
    )


def main() -> None:
    """Train, or learn from what was trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("train", "learn"))
    parser.add_argument("curves", type=Path)
    parser.add_argument("--count", type=int, default=48)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.action == "train":
        train(arguments.curves, arguments.count)
    else:
        learn(read_rows(arguments.curves))


if __name__ == "__main__":
    main()
