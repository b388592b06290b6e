"""Suspected label errors, with planted ones."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

pytest.importorskip("cleanlab", reason="needs cleanlab")

from visionsweep.report.sweep.label_errors import suspected_labels


@pytest.fixture(scope="module")
def planted():
    """Digits with 30 wrong labels, and out-of-fold probabilities of a linear model."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:900] / 16, labels[:900].astype(np.int64)
    rng = np.random.default_rng(0)
    wrong = rng.choice(len(labels), 30, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    model = LogisticRegression(C=0.1, max_iter=200)
    probabilities = cross_val_predict(model, images, given, cv=3, method="predict_proba")
    return given, labels, wrong, probabilities


def test_wrong_labels_are_found_and_their_class_is_suggested(planted):
    given, labels, wrong, probabilities = planted
    found = suspected_labels(given, probabilities)
    indices = [suspect.index for suspect in found]
    assert len(set(indices) & set(wrong.tolist())) >= 24
    first = found[:15]
    assert len({suspect.index for suspect in first} & set(wrong.tolist())) >= 13
    right = [suspect for suspect in first if suspect.suggested == labels[suspect.index]]
    assert len(right) >= 13
    confidences = [suspect.confidence for suspect in found]
    assert confidences == sorted(confidences)
    assert confidences[0] == pytest.approx(probabilities[indices[0], given[indices[0]]])


def test_classes_that_are_rare_or_missing_are_left_out(planted):
    given, _, _, probabilities = planted
    rows = np.flatnonzero(given < 4)
    rows = np.append(rows, np.flatnonzero(given == 7)[:1])  # one image of its class
    found = suspected_labels(given[rows], probabilities[rows])
    assert {int(given[rows][suspect.index]) for suspect in found} <= {0, 1, 2, 3}
    assert {suspect.suggested for suspect in found} <= {0, 1, 2, 3}


def test_a_single_class_has_no_suspects():
    assert suspected_labels(np.zeros(5, dtype=np.int64), np.full((5, 2), 0.5)) == []
