"""Metrics from weighted counts, compared with scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from visionsweep.answer.metrics import METRICS, class_f1, count, score

K = 6
SKLEARN = {
    "accuracy": lambda t, p, w, labels: sk.accuracy_score(t, p, sample_weight=w),
    "balanced_accuracy": lambda t, p, w, labels: sk.recall_score(
        t, p, sample_weight=w, labels=sorted(set(t)), average="macro", zero_division=0
    ),
}
for _name, _function in (
    ("f1", sk.f1_score),
    ("precision", sk.precision_score),
    ("recall", sk.recall_score),
):
    for _average in ("macro", "weighted"):
        SKLEARN[f"{_name}_{_average}"] = (
            lambda t, p, w, labels, function=_function, average=_average: function(
                t, p, sample_weight=w, labels=labels, average=average, zero_division=0
            )
        )


@pytest.mark.parametrize("absent", ["zero", "skip"])
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_that_of_scikit_learn_under_each_weighting(name: str, absent: str) -> None:
    """Class 5 has neither a target nor a prediction, class 4 predictions only."""
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 4, 80)
    preds = np.where(generator.random(80) < 0.6, targets, generator.integers(0, 5, 80))
    weights = generator.exponential(size=(7, 80))
    found = score(name, count(preds, targets, K, weights), absent)
    labels = list(range(K)) if absent == "zero" else None
    expected = [SKLEARN[name](targets, preds, row, labels) for row in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_f1_of_each_class_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    targets, preds = generator.integers(0, K, (2, 50))
    found = class_f1(count(preds, targets, K, np.ones((1, 50))))[0]
    np.testing.assert_allclose(found, sk.f1_score(targets, preds, average=None), rtol=1e-12)


def test_counts_of_disjoint_images_add_up() -> None:
    generator = np.random.default_rng(3)
    targets, preds = generator.integers(0, K, (2, 50))
    weights = generator.exponential(size=(3, 50))
    parts = [
        count(preds[part], targets[part], K, weights[:, part])
        for part in (slice(0, 20), slice(20, 50))
    ]
    whole = count(preds, targets, K, weights)
    np.testing.assert_allclose((parts[0] + parts[1]).correct, whole.correct)
    np.testing.assert_allclose((parts[0] + parts[1]).predicted, whole.predicted)
