"""Objectives over all folds, against scikit-learn and against what a run computes with torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from tests.answer.made import make_finished_run, split_of
from visionsweep.answer.metrics import Absent
from visionsweep.answer.objectives import metrics_of, pooled_objectives
from visionsweep.errors import DataError
from visionsweep.training.metrics import classification_metrics, confusion_matrix

NAMES = [f"class_{k}" for k in range(8)]


def images(count: int, seed: int, classes: int = 8) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    # The last class never occurs, and the second has few images.
    targets = rng.choice(classes - 1, count, p=[0.4, 0.02, *[0.58 / (classes - 3)] * (classes - 3)])
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[targets]
    logits[:, -1] = -9.0
    return logits.astype(np.float32), targets.astype(np.int64)


@pytest.mark.parametrize("absent", ["zero", "skip"])
def test_every_metric_is_that_of_a_run(absent: Absent) -> None:
    logits, targets = images(200, seed=1)
    preds = torch.from_numpy(logits.argmax(axis=1))
    matrix = confusion_matrix(preds, torch.from_numpy(targets), len(NAMES))
    expected = classification_metrics(matrix, NAMES, absent)
    top5 = torch.from_numpy(logits).topk(5, dim=1).indices.numpy()
    expected["top5_accuracy"] = float((top5 == targets[:, None]).any(axis=1).mean())
    found = metrics_of(split_of(logits, targets), NAMES, absent, "val")
    named = {f"val/{name}": value for name, value in expected.items()}
    assert found == pytest.approx(named, abs=1e-12)


def make_folds(folder: Path, metric: str, **others: list[float]) -> list[Path]:
    directories = []
    for fold, count in enumerate((60, 60, 30)):
        logits, targets = images(count, seed=fold)
        ids = [f"{fold}/{i}" for i in range(count)]
        result = {
            "objective": {"metric": metric, "direction": "maximize", "value": 0.1 * fold},
            "others": {name.replace("_", "/", 1): values[fold] for name, values in others.items()},
        }
        split = split_of(logits, targets, ids)
        directories.append(make_finished_run(folder / f"fold_{fold}", split, result=result))
    return directories


def test_macro_f1_is_that_of_all_images_once(tmp_path: Path) -> None:
    directories = make_folds(tmp_path, "val/f1_macro")
    parts = [images(count, seed) for seed, count in enumerate((60, 60, 30))]
    preds = np.concatenate([logits.argmax(axis=1) for logits, _ in parts])
    targets = np.concatenate([targets for _, targets in parts])
    labels = range(8)
    expected = f1_score(targets, preds, labels=labels, average="macro", zero_division=0)
    [found] = pooled_objectives(directories)
    assert found.is_exact
    assert found.value == pytest.approx(expected, abs=1e-12)
    means = [
        f1_score(t, x.argmax(axis=1), labels=labels, average="macro", zero_division=0)
        for x, t in parts
    ]
    assert abs(float(np.mean(means)) - expected) > 0.01  # the mean of three F1s is another number


def test_a_loss_is_the_mean_over_images_and_says_that_it_is_not_exact(tmp_path: Path) -> None:
    directories = make_folds(tmp_path, "val/accuracy", val_loss=[1.0, 2.0, 4.0])
    accuracy, loss = pooled_objectives(directories)
    assert (accuracy.metric, accuracy.is_exact) == ("val/accuracy", True)
    assert (loss.metric, loss.is_exact) == ("val/loss", False)
    assert loss.value == pytest.approx((60 * 1.0 + 60 * 2.0 + 30 * 4.0) / 150)


def test_a_fold_that_did_not_finish_is_named(tmp_path: Path) -> None:
    directories = make_folds(tmp_path, "val/f1_macro")
    (directories[1] / "result.json").write_text('{"state": "stopped"}')
    with pytest.raises(DataError, match="fold_1: expected a finished run, got stopped"):
        pooled_objectives(directories)
