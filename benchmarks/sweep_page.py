"""Time and size of a sweep's page: `python benchmarks/sweep_page.py`. One thread, made-up data.

The sweep's directory holds 500 trials of 27 epochs: 25 metrics per epoch, two of three trials
pruned, a conditional parameter; the complete ones with predictions of 2,000 images in 10 classes,
and 24 pictures of 128 x 128 pixels. Measures reading the sweep, making its page and making its
description for MLflow, each the median of 5. The first page of a process also imports Optuna,
plotly and cleanlab, and compresses plotly's code. The bars: page under 10 s and 5 MB, reading well
under 1 s.
"""

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import yaml
from machine import machine

from visionsweep.report.sweep.leaderboard import description_markdown, leaderboard_table
from visionsweep.report.sweep.page import write_report
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import CONFIG, REPORT, RESULT, SWEEP, TRIALS
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    worst_mistakes,
    write_predictions,
)
from visionsweep.sweep.results import trials_csv
from visionsweep.sweep.trial_record import TrialRecord

ROUNDS = 5
WORKERS = 4
NUM_IMAGES, NUM_CLASSES, SIDE = 2000, 10, 128
BARS = {"first_page_seconds": 10.0, "page_seconds": 10.0, "megabytes": 5.0, "read_seconds": 1.0}
SPACE: dict[str, dict[str, Any]] = {
    "optim.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "step": None},
    "loss": {"choices": ["cross_entropy", "focal", "label_smoothing", "ce_f1"]},
    "loss.gamma": {
        "type": "float",
        "low": 0.5,
        "high": 5.0,
        "log": False,
        "step": None,
        "when": ["loss=focal"],
    },
    "optim.weight_decay": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True, "step": None},
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.9, "log": False, "step": None},
    "trainer.batch_size": {"choices": [16, 32, 64, 128, 256]},
    "trainer.accumulate": {"choices": [1, 2, 4]},
    "augment": {"choices": ["none", "basic", "strong"]},
}


def make_sweep(sweep_dir: Path, num_trials: int, epochs: int) -> None:
    """Write a sweep's directory: its settings, its table and one journal per trial."""
    rng = random.Random(0)
    free = [0.0] * WORKERS
    trials = []
    for number in range(num_trials):
        params = _draw(rng)
        quality = _quality(params) + rng.gauss(0.0, 0.004)
        is_pruned = number > 10 and rng.random() < (0.9 if quality < 0.9 else 0.5)
        last = rng.randint(2, epochs - 1) if is_pruned else epochs
        worker = free.index(min(free))
        start = 1_795_000_000.0 + free[worker]
        curve = [
            quality * (1 - math.exp(-epoch / 3)) + rng.gauss(0.0, 0.004)
            for epoch in range(1, last + 1)
        ]
        _write_run(sweep_dir / str(number), params, curve, start)
        if not is_pruned:
            _write_predictions(sweep_dir / str(number), curve, number)
        free[worker] += 2.0 * last + rng.uniform(0.5, 1.5)
        trials.append(
            TrialRecord(
                number=number,
                state="pruned" if is_pruned else "complete",
                values=(curve[-1] if is_pruned else max(curve),),
                params=params,
                start=start,
                end=start + 2.0 * last,
                epochs=last,
                directory=str(number),
            )
        )
    config = {"objective": {"metric": "val/f1_macro", "others": {}}, "trainer": {"epochs": epochs}}
    stored = {"search": {"space": SPACE, "direction": ["maximize"], "seeds": 1}, "config": config}
    (sweep_dir / SWEEP).write_text(yaml.safe_dump(stored, sort_keys=False), encoding="utf-8")
    (sweep_dir / TRIALS).write_text(trials_csv(trials, ["maximize"]), encoding="utf-8")


def _draw(rng: random.Random) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for key, space in SPACE.items():
        if "when" in space and params["loss"] != "focal":
            continue
        if "choices" in space:
            params[key] = rng.choice(space["choices"])
        elif space["log"]:
            params[key] = math.exp(rng.uniform(math.log(space["low"]), math.log(space["high"])))
        else:
            params[key] = rng.uniform(space["low"], space["high"])
    return params


def _quality(params: dict[str, Any]) -> float:
    lr = -0.06 * (math.log10(params["optim.lr"]) + 2.5) ** 2
    losses = {"cross_entropy": 0.0, "focal": 0.01, "label_smoothing": 0.004, "ce_f1": -0.02}
    regularization = 0.03 * params["model.drop_rate"] + 0.01 * (params["augment"] == "strong")
    return 0.93 + lr + losses[params["loss"]] - regularization


def _write_run(run_dir: Path, params: dict[str, Any], curve: list[float], start: float) -> None:
    journal = Journal(run_dir)
    journal.start(f"sweep/{run_dir.name}", "benchmark", params, {"dataset": "made up"})
    for epoch, value in enumerate(curve, start=1):
        per_class = {f"val/f1_class/{k}": value - 0.001 * k for k in range(10)}
        others = {f"val/metric_{k}": value / (k + 1) for k in range(10)}
        values = {
            "train/loss": 1 - value,
            "val/loss": 1.1 - value,
            "val/f1_macro": value,
            "train/lr": 1e-3,
        }
        journal.metrics(epoch, values | per_class | others, round(1000 * (start + 2.0 * epoch)))
    journal.close()


def _write_predictions(run_dir: Path, curve: list[float], number: int) -> None:
    """Write what a finished run leaves; of its last epochs about the share in `curve` is right."""
    rng = np.random.default_rng(number)
    accuracy = max(curve)
    targets = np.random.default_rng(0).integers(0, NUM_CLASSES, NUM_IMAGES)
    wrong = rng.random(NUM_IMAGES) > accuracy
    seen = np.where(wrong, rng.integers(0, NUM_CLASSES, NUM_IMAGES), targets)
    logits = rng.normal(0, 1, (NUM_IMAGES, NUM_CLASSES)).astype(np.float32)
    logits[np.arange(NUM_IMAGES), seen] += 4
    mistakes = worst_mistakes(logits, targets)
    images = rng.integers(0, 256, (len(mistakes), 3, SIDE, SIDE)).astype(np.uint8)
    ids = np.array([f"images/{i:05d}.png" for i in range(NUM_IMAGES)])
    names = [f"class_{k}" for k in range(NUM_CLASSES)]
    val = SplitPredictions(ids, targets, logits, np.full(NUM_IMAGES, ""))
    others = rng.integers(0, NUM_CLASSES, (len(curve), NUM_IMAGES))
    is_right = rng.random(others.shape) < np.array(curve)[:, None]
    epochs = np.where(is_right, targets, others).astype(np.int16)
    epochs[-1] = logits.argmax(axis=1)
    write_predictions(run_dir, Predictions(names, val, None, mistakes, images, epochs))
    objective = {"metric": "val/f1_macro", "direction": "maximize", "value": accuracy}
    result = {"state": "finished", "objective": objective, "epochs": 27, "best_epoch": 27}
    (run_dir / RESULT).write_text(json.dumps(result | {"metrics": {}, "test": None}))
    (run_dir / CONFIG).write_text(yaml.safe_dump({"seed": 0, "objective": objective}))


def timed(call: Callable[[], object]) -> float:
    """Return the seconds a call takes, the median of 5."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Make the sweep, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument(
        "--keep",
        type=Path,
        help="write the sweep and its page to this directory and keep them",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        sweep_dir = (arguments.keep or Path(directory)) / "sweep"
        make_sweep(sweep_dir, arguments.trials, arguments.epochs)
        page = sweep_dir / REPORT
        read_seconds = timed(lambda: read_sweep(sweep_dir))
        record = read_sweep(sweep_dir)
        started = time.perf_counter()
        write_report(sweep_dir, record)
        first = time.perf_counter() - started
        figures = {
            "read_seconds": read_seconds,
            "first_page_seconds": first,
            "page_seconds": timed(lambda: write_report(sweep_dir, record)),
            "description_seconds": timed(lambda: description_markdown(record, {})),
            "table_seconds": timed(lambda: leaderboard_table(record, {})),
            "megabytes": page.stat().st_size / 1e6,
        }
    size = f"{arguments.trials} trials of {arguments.epochs} epochs"
    print(f"{machine()}  1 thread, {size}, median of {ROUNDS}")
    for name, value in figures.items():
        bar = f"   bar {BARS[name]:g}" if name in BARS else ""
        print(f"{name.replace('_', ' '):<22}{value:8.3f}{bar}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
