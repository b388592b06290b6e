"""The bootstrap over images against closed forms."""

import numpy as np
import pytest

from visionsweep.answer.bootstrap import exact_scores, resampled_scores, units_of
from visionsweep.answer.groups import Replicate

RNG = np.random.default_rng(0)


def replicate(preds, targets, ids=None, groups=None, num_classes=3) -> Replicate:
    ids = [f"i{n}" for n in range(len(targets))] if ids is None else ids
    names = tuple(map(str, range(num_classes)))
    groups = np.array(groups) if groups is not None else np.full(len(targets), "")
    return Replicate((), names, np.array(ids), np.array(targets), np.array(preds), groups)


def scores(*runs: Replicate, metric="accuracy", resamples=4000):
    return resampled_scores(runs, units_of(runs), metric, "zero", resamples=resamples)


def test_the_variance_of_accuracy_is_the_binomial_one() -> None:
    targets = RNG.integers(0, 3, 200)
    preds = np.where(RNG.random(200) < 0.7, targets, (targets + 1) % 3)
    share = (preds == targets).mean()
    found = scores(replicate(preds, targets))[:, 0]
    assert found.std() == pytest.approx(np.sqrt(share * (1 - share) / 201), rel=0.05)
    assert found.mean() == pytest.approx(share, abs=0.003)


def test_whole_groups_are_resampled() -> None:
    """Ten groups of 20 images that are all right or all wrong: as few as ten images."""
    targets = np.zeros(200, dtype=int)
    groups = [f"g{n // 20}" for n in range(200)]
    preds = np.array([n // 20 % 2 for n in range(200)])
    run = replicate(preds, targets, groups=groups)
    assert len(units_of([run]).names) == 10
    assert units_of([run]).are_groups
    assert scores(run).std() == pytest.approx(np.sqrt(0.25 / 11), rel=0.05)


def test_an_image_has_one_weight_in_all_runs() -> None:
    targets = RNG.integers(0, 3, 60)
    preds = RNG.integers(0, 3, 60)
    order = RNG.permutation(60)
    ids = [f"i{n}" for n in order]
    first, second = replicate(preds, targets), replicate(preds[order], targets[order], ids)
    found = scores(first, second, metric="f1_macro")
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-5)


def test_runs_without_a_common_image_are_independent() -> None:
    targets = RNG.integers(0, 3, 100)
    preds = np.where(RNG.random(100) < 0.6, targets, 0)
    found = scores(
        replicate(preds, targets), replicate(preds, targets, [f"j{n}" for n in range(100)])
    )
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.05


def test_a_class_of_one_image_never_vanishes() -> None:
    targets = np.array([0] * 30 + [1])
    found = scores(replicate(targets, targets, num_classes=2), metric="f1_macro")
    np.testing.assert_allclose(found, 1)


def test_exact_scores_need_no_resample() -> None:
    run = replicate([0, 1, 1, 2], [0, 1, 2, 2])
    assert exact_scores([run], "accuracy", "zero").tolist() == [0.75]
