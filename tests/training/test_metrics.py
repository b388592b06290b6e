"""Metrics from a confusion matrix against scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from visionsweep.training.metrics import (
    CLASS_F1_PREFIX,
    METRIC_DIRECTIONS,
    classification_metrics,
    confusion_matrix,
)

K = 5
NAMES = ["a", "b", "c", "d", "e"]

label_pairs = st.lists(
    st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), min_size=1, max_size=40
)


def sklearn_metrics(targets: list[int], preds: list[int], absent_classes: str) -> dict[str, float]:
    """Return scikit-learn's metrics: labels=range(K) for "zero", its default for "skip"."""
    labels = list(range(K)) if absent_classes == "zero" else sorted(set(targets) | set(preds))
    result = {
        "accuracy": sk.accuracy_score(targets, preds),
        # its balanced_accuracy_score warns about predictions of classes that have no targets
        "balanced_accuracy": sk.recall_score(
            targets, preds, labels=sorted(set(targets)), average="macro"
        ),
    }
    for average in ("macro", "weighted"):
        scores = sk.precision_recall_fscore_support(
            targets, preds, labels=labels, average=average, zero_division=0
        )
        for name, score in zip(("precision", "recall", "f1"), scores, strict=False):
            result[f"{name}_{average}"] = score
    f1 = sk.f1_score(targets, preds, labels=labels, average=None, zero_division=0)
    return result | {f"f1_class/{NAMES[c]}": score for c, score in zip(labels, f1, strict=True)}


def our_metrics(targets: list[int], preds: list[int], absent_classes: str) -> dict[str, float]:
    matrix = confusion_matrix(torch.tensor(preds), torch.tensor(targets), K)
    return classification_metrics(matrix, NAMES, absent_classes)


@given(pairs=label_pairs, absent_classes=st.sampled_from(["zero", "skip"]))
@settings(max_examples=40, deadline=None)
def test_metrics_are_those_of_sklearn(pairs, absent_classes):
    targets, preds = map(list, zip(*pairs, strict=True))
    ours = our_metrics(targets, preds, absent_classes)
    assert ours == pytest.approx(sklearn_metrics(targets, preds, absent_classes), abs=1e-12)


def test_balanced_accuracy_is_that_of_sklearn():
    targets, preds = [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0]
    expected = sk.balanced_accuracy_score(targets, preds)
    assert our_metrics(targets, preds, "zero")["balanced_accuracy"] == pytest.approx(expected)


def test_the_rule_for_absent_classes():
    targets = [0, 0, 1, 2]
    perfect = {rule: our_metrics(targets, targets, rule) for rule in ("zero", "skip")}
    assert perfect["zero"]["f1_macro"] == pytest.approx(3 / 5)  # two of five classes are absent
    assert perfect["skip"]["f1_macro"] == 1
    assert perfect["zero"]["f1_class/d"] == 0
    assert "f1_class/d" not in perfect["skip"]
    assert perfect["zero"]["f1_weighted"] == perfect["skip"]["f1_weighted"] == 1
    # One stray prediction of an absent class brings it back.
    assert our_metrics([0, 0, 1, 2], [0, 3, 1, 2], "skip")["f1_class/d"] == 0


@given(pairs=label_pairs)
@settings(max_examples=20, deadline=None)
def test_confusion_matrix_is_that_of_sklearn_and_adds_up(pairs):
    targets, preds = torch.tensor(pairs).T
    matrix = confusion_matrix(preds, targets, K)
    assert matrix.dtype == torch.int64
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(targets, preds, labels=range(K)))
    parts = [
        confusion_matrix(p, t, K) for p, t in zip(preds.split(7), targets.split(7), strict=True)
    ]
    assert torch.equal(sum(parts), matrix)


def test_counts_beyond_float32_are_exact():
    matrix = torch.tensor([[2**25 + 1, 1], [0, 2**25 - 1]])
    assert classification_metrics(matrix, ["x", "y"], "zero")["accuracy"] == 2**26 / (2**26 + 1)


def test_every_metric_has_a_direction():
    names = our_metrics([0, 1], [1, 0], "zero").keys()
    assert {
        name for name in names if not name.startswith(CLASS_F1_PREFIX)
    } <= METRIC_DIRECTIONS.keys()
    assert [name for name, direction in METRIC_DIRECTIONS.items() if direction == "minimize"] == [
        "loss"
    ]


def test_the_directions_are_known_without_importing_torch():
    code = "import sys, visionsweep.training.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
