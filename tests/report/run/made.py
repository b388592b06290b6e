"""A finished run's files, made up."""

import json

import numpy as np

from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import CONFIG, RESULT
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    worst_mistakes,
    write_predictions,
)


def make_logits(seed, num_samples, num_classes, decimals=None):
    """Return logits that know something of the targets, and the targets; `decimals` makes ties."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, num_classes, num_samples)
    logits = generator.normal(size=(num_samples, num_classes))
    logits[np.arange(num_samples), targets] += 1.5
    if decimals is not None:
        logits = logits.round(decimals)
    return logits.astype(np.float32), targets


def make_probabilities(seed, num_samples, num_classes, decimals=None):
    """Return probabilities that know something of the targets, and the targets."""
    logits, targets = make_logits(seed, num_samples, num_classes)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (probabilities if decimals is None else probabilities.round(decimals)), targets


def make_run(run_dir, class_names, num_samples=60, logits=None):
    """Write what a run of two epochs leaves behind; the second epoch is the best."""
    random_logits, targets = make_logits(0, num_samples, len(class_names))
    logits = random_logits if logits is None else logits
    ids = np.array([f"images/{i:03d}.png" for i in range(num_samples)])
    worst = worst_mistakes(logits, targets)
    pixels = np.random.default_rng(0).integers(0, 256, (len(worst), 1, 8, 8), dtype=np.uint8)
    val = SplitPredictions(ids, targets, logits)
    write_predictions(run_dir, Predictions(list(class_names), val, None, worst, pixels))
    journal = Journal(run_dir)
    journal.start("name", "experiment", {}, {})
    for epoch in (1, 2):
        journal.metrics(epoch, {"train/loss": 1 / epoch, "val/loss": 2 / epoch})
    journal.end("finished")
    journal.close()
    (run_dir / CONFIG).write_text("metrics: {absent_classes: skip}\n")
    (run_dir / RESULT).write_text(json.dumps({"state": "finished", "best_epoch": 2}))
    return val
