"""The objectives of runs that are folds of each other, over the validation images of all of them.

Macro F1 is not additive: the mean of five F1s is not the F1 of all images (with few images of a
class per fold, it is lower and noisier). So metrics are computed once, from the pooled predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionsweep.answer.metrics import METRICS, Absent, Counts, class_f1, score
from visionsweep.answer.predictions import pooled
from visionsweep.errors import DataError
from visionsweep.rundir.description import read_config
from visionsweep.rundir.layout import PREDICTIONS
from visionsweep.rundir.predictions import Predictions, SplitPredictions, read_predictions
from visionsweep.rundir.result import read_result

_CLASS_F1 = "f1_class/"
_TOP5 = "top5_accuracy"


@dataclass(frozen=True)
class PooledObjective:
    """An objective of all folds together."""

    metric: str
    value: float
    # False: predictions do not tell it (a loss, the number of parameters), so it is the mean over
    # the folds, weighted by their images. That is exact for a loss that weighs all images equally.
    is_exact: bool


def has_predictions(run_dirs: Sequence[Path]) -> bool:
    """Return whether every run left predictions; the runs of another app leave none."""
    return all((run_dir / PREDICTIONS).is_file() for run_dir in run_dirs)


def pooled_objectives(run_dirs: Sequence[Path]) -> list[PooledObjective]:
    """Return the objectives of finished runs, which are the folds of one split, in their order.

    Raises `DataError` if a file of a run is missing or damaged.
    """
    results = [_finished(run_dir) for run_dir in run_dirs]
    predictions = [read_predictions(run_dir) for run_dir in run_dirs]
    absent_classes = read_config(run_dirs[0]).get("metrics", {}).get("absent_classes", "zero")
    metrics = pooled_metrics(predictions, absent_classes)
    sizes = [len(run.val.targets) for run in predictions]
    names = [results[0]["objective"]["metric"], *results[0]["others"]]
    objectives = []
    for name in names:
        if name in metrics:
            objectives.append(PooledObjective(name, metrics[name], is_exact=True))
        else:
            values = [_value(result, name) for result in results]
            mean = values[0] if len(set(values)) == 1 else float(np.average(values, weights=sizes))
            objectives.append(PooledObjective(name, mean, is_exact=False))
    return objectives


def pooled_metrics(predictions: Sequence[Predictions], absent_classes: Absent) -> dict[str, float]:
    """Return every metric of all images together, as ``val/NAME``; the loss is not one of them."""
    together = pooled([run.val for run in predictions])
    return metrics_of(together, predictions[0].class_names, absent_classes, "val")


def metrics_of(
    split: SplitPredictions, class_names: Sequence[str], absent_classes: Absent, prefix: str
) -> dict[str, float]:
    """Return accuracy, balanced accuracy, precision, recall and F1, with the F1 of each class.

    Each is named ``prefix/name``. The names and rules are those of
    `training.metrics.classification_metrics`, which needs torch; a test compares them.
    """
    logits, targets = split.logits, split.targets
    counts = Counts.of_labels(logits.argmax(axis=1), targets, len(class_names))
    metrics = {name: score(name, counts, absent_classes) for name in METRICS}
    f1, is_there = class_f1(counts), counts.actual + counts.predicted > 0
    for name, value, is_present in zip(class_names, f1, is_there, strict=True):
        if is_present or absent_classes == "zero":
            metrics[f"{_CLASS_F1}{name}"] = value
    if len(class_names) > 5:
        own = logits[np.arange(len(targets)), targets]
        metrics[_TOP5] = ((logits > own[:, None]).sum(axis=1) < 5).mean()
    return {f"{prefix}/{name}": float(value) for name, value in metrics.items()}


def _finished(run_dir: Path) -> dict[str, Any]:
    result = read_result(run_dir)
    if result is None or result["state"] != "finished":
        state = "no result" if result is None else result["state"]
        raise DataError(f"{run_dir}: expected a finished run, got {state}")
    return result


def _value(result: dict[str, Any], name: str) -> float:
    objective = result["objective"]
    value = objective["value"] if objective["metric"] == name else result["others"][name]
    return float("nan") if value is None else float(value)
