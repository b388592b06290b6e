"""The weights of an ensemble, and what it is worth on images that it was not chosen on."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from visionsweep.answer.cross_fit import cross_fitted, deal_folds, group_indices
from visionsweep.answer.ensemble import (
    choose_ensemble,
    choose_weights,
    convex_weights,
    greedy_weights,
    mix,
)
from visionsweep.answer.score import METRICS, score

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def made(
    num_members: int, num_images: int, noise: float = 1.5, seed: int = 0, classes: int = 4
) -> tuple[Floats, Indices]:
    """Return the probabilities (M, N, K) of members that are right with noise, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=num_images)
    logits = rng.normal(0, noise, (num_members, num_images, classes))
    logits += np.linspace(1, 2, num_members)[:, None, None] * np.eye(classes)[targets]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=2, keepdims=True), targets


def test_metrics_are_those_of_scikit_learn() -> None:
    (probabilities,), targets = made(1, 300)
    preds = probabilities.argmax(axis=1)
    expected = {
        "log_loss": log_loss(targets, probabilities),
        "f1_macro": f1_score(targets, preds, average="macro"),
        "accuracy": accuracy_score(targets, preds),
        "balanced_accuracy": balanced_accuracy_score(targets, preds),
    }
    found = {metric: score(metric, probabilities, targets) for metric in METRICS}
    assert found == pytest.approx(expected)


def test_convex_weights_have_the_least_log_loss() -> None:
    """By a general solver on the same problem."""
    probabilities, targets = made(5, 400)
    given = probabilities[:, np.arange(400), targets]
    found = minimize(
        lambda w: -np.log(w @ given).mean(),
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    weights = convex_weights(probabilities, targets)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert -np.log(weights @ given).mean() == pytest.approx(found.fun, abs=1e-4)
    np.testing.assert_allclose(weights, found.x, atol=0.02)
    assert found.fun < min(-np.log(row).mean() for row in given) - 0.01


@pytest.mark.parametrize("metric", ["log_loss", "f1_macro"])
def test_greedy_selection_is_that_of_caruana(metric: str) -> None:
    """Written again, with lists and scikit-learn."""
    probabilities, targets = made(4, 120)

    def value(chosen: list[int]) -> float:
        mean = np.mean([probabilities[m] for m in chosen], axis=0)
        if metric == "log_loss":
            return -float(log_loss(targets, mean))
        return float(f1_score(targets, mean.argmax(axis=1), average="macro"))

    chosen: list[int] = []
    path = []
    for _ in range(12):
        values = [value([*chosen, m]) for m in range(4)]
        chosen = [*chosen, int(np.argmax(values))]
        path.append(max(values))
    best = chosen[: int(np.argmax(path)) + 1]
    expected = np.bincount(best, minlength=4) / len(best)
    found = greedy_weights(metric, probabilities, targets, rounds=12)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected)
    assert len(best) > 1


def test_uniform_weights_and_a_single_member() -> None:
    probabilities, targets = made(3, 50)
    assert choose_weights("uniform", "log_loss", probabilities, targets).tolist() == [1 / 3] * 3
    assert choose_weights("greedy", "log_loss", probabilities[:1], targets).tolist() == [1]
    np.testing.assert_allclose(
        mix(np.array([0.5, 0.25, 0.25]), probabilities),
        probabilities[0] / 2 + probabilities[1] / 4 + probabilities[2] / 4,
    )


def test_folds_hold_whole_groups_and_a_share_of_each_class() -> None:
    rng = np.random.default_rng(0)
    class_of_group = rng.permutation(np.repeat([0, 1, 2], [150, 40, 10]))
    groups = np.repeat(np.arange(200), rng.integers(1, 5, 200))
    targets = class_of_group[groups]
    fold_of = deal_folds(targets, groups, 5)
    assert all(len(set(fold_of[groups == g])) == 1 for g in range(200))
    for k, count in ((0, 150), (1, 40), (2, 10)):
        fold_of_group = {g: fold_of[groups == g][0] for g in range(200) if class_of_group[g] == k}
        assert set(np.bincount(list(fold_of_group.values()), minlength=5)) == {count // 5}
    named = np.array(["b", "", "a", "", "b"])
    found = group_indices(named, 5)
    assert found[0] == found[4]
    assert len(set(found.tolist())) == 4
    assert set(deal_folds(np.array([0, 1]), np.array([0, 0]))) == {0}


def test_no_image_is_predicted_by_a_choice_that_it_took_part_in() -> None:
    targets = np.arange(20) % 2
    fold_of = deal_folds(targets, np.arange(20), 4)
    seen = []

    def predict(chosen_on: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> Floats:
        assert not (chosen_on & held_out).any()
        assert (chosen_on | held_out).all()
        seen.append(held_out)
        return np.flatnonzero(held_out)[:, None].astype(float)

    predicted = cross_fitted(predict, fold_of)
    np.testing.assert_array_equal(predicted[:, 0], np.arange(20))
    assert sum(seen).tolist() == [1] * 20  # type: ignore[union-attr]


def test_the_score_of_a_choice_among_noise_is_honest() -> None:
    """60 members that know nothing: what is chosen by F1 looks good, and cross-fitted it is not."""
    rng = np.random.default_rng(1)
    probabilities, targets = rng.dirichlet(np.ones(2), (60, 80)), rng.integers(2, size=80)
    choice = choose_ensemble("greedy", "f1_macro", probabilities, targets)
    assert choice.raw_score > 0.65
    assert choice.best_raw_score > 0.6
    assert choice.score < 0.6
    assert choice.best_score < 0.6
    assert choice.low < choice.gain < choice.high
    assert choice.low < 0 < choice.high


def test_a_gain_is_positive_for_every_metric_if_the_ensemble_is_better() -> None:
    probabilities, targets = made(6, 600, noise=2.5)
    for metric in METRICS:
        choice = choose_ensemble("uniform", metric, probabilities, targets)
        assert choice.low > 0
        assert choice.score == pytest.approx(choice.raw_score)
        assert choice.used == list(range(6))
