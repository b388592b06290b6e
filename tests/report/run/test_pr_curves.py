import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from tests.report.run.drawn import Drawn, pixels
from visionsweep.report.run import pr_curves
from visionsweep.report.run.pr_curves import average_precisions, pr_curves_png


def scored(seed, num_samples, num_classes, decimals=None):
    """Probabilities that know something of the targets; with few decimals many of them are equal."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, num_classes, num_samples)
    logits = generator.normal(size=(num_samples, num_classes))
    logits[np.arange(num_samples), targets] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    return probabilities.astype(np.float32), targets


CASES = [(2, None), (2, 1), (10, None), (10, 1), (10, 2), (50, 2)]


@pytest.mark.parametrize(("num_classes", "decimals"), CASES)
def test_average_precision_is_that_of_scikit_learn(num_classes, decimals):
    probabilities, targets = scored(1, 600, num_classes, decimals)
    expected = [
        average_precision_score(targets == k, probabilities[:, k]) for k in range(num_classes)
    ]
    assert average_precisions(probabilities, targets) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("num_classes", "decimals"), CASES)
def test_curves_are_those_of_scikit_learn_where_recall_grows(num_classes, decimals):
    probabilities, targets = scored(2, 400, num_classes, decimals)
    is_own = targets[:, None] == np.arange(num_classes)
    curves = pr_curves._class_curves(probabilities, targets)
    pairs = [
        (curves[k], is_own[:, k], probabilities[:, k])
        for k in range(num_classes)
        if is_own[:, k].any()
    ]
    pairs.append(
        (pr_curves._micro_curve(probabilities, targets), is_own.ravel(), probabilities.ravel())
    )
    for (precision, recall), is_positive, scores in pairs:
        all_precision, all_recall, _ = precision_recall_curve(is_positive, scores)
        # By falling recall: of each recall the last point has the highest threshold, which takes the fewest negatives.
        expected = {
            round(r, 9): p
            for p, r in zip(all_precision[:-1], all_recall[:-1], strict=True)
            if r > 0
        }
        got = {round(r, 9): p for p, r in zip(precision, recall, strict=True)}
        assert got == pytest.approx(expected, rel=1e-9)
        assert (np.diff(recall) >= 0).all()


def test_the_area_under_a_drawn_curve_is_the_average_precision(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, pr_curves)
    probabilities, targets = scored(3, 800, 3)
    pr_curves_png(probabilities, targets, ["a", "b", "c"], tmp_path / "pr.png")
    expected = sorted(average_precision_score(targets == k, probabilities[:, k]) for k in range(3))
    areas = []
    for line in drawn.figures[0].axes[0].lines:
        recall, precision = line.get_data()
        assert line.get_drawstyle() == "steps-pre"
        areas.append(float(np.diff(recall) @ precision[1:]))
    assert sorted(areas) == pytest.approx(expected, abs=2e-3)  # thinned
    assert {f"{value:.3f}" for value in expected} <= set(drawn.texts)
    assert f"mean average precision {np.mean(expected):.3f}" in drawn.texts


@pytest.mark.parametrize("num_samples", [1, 299, 300, 301, 5000])
def test_thinned_curves_keep_their_ends(num_samples):
    recall = np.arange(1, num_samples + 1) / num_samples
    precision, thinned = pr_curves._thinned((1 - recall / 2, recall))
    assert thinned.size == min(num_samples, 300)
    assert (thinned[0], thinned[-1], precision[-1]) == (recall[0], 1, 0.5)


def test_of_many_classes_the_lowest_and_the_micro_average_are_drawn(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, pr_curves)
    probabilities, targets = scored(4, 900, 30)
    pr_curves_png(probabilities, targets, [f"class {k}" for k in range(30)], tmp_path / "pr.png")
    expected = [average_precision_score(targets == k, probabilities[:, k]) for k in range(30)]
    names = [text for text in drawn.texts if text.startswith(("class", "micro"))]
    assert names == ["micro average", *(f"class {k}" for k in np.argsort(expected)[:10][::-1])]
    micro = average_precision_score(
        (targets[:, None] == np.arange(30)).ravel(), probabilities.ravel()
    )
    assert f"{micro:.3f}" in drawn.texts
    assert (
        f"mean average precision {np.mean(expected):.3f}; the 10 lowest of 30 classes"
        in drawn.texts
    )


def test_classes_without_samples_are_left_out_and_named(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, pr_curves)
    probabilities, targets = scored(5, 300, 6)
    targets = np.where((targets == 2) | (targets == 4), 0, targets)
    values = average_precisions(probabilities, targets)
    assert np.flatnonzero(np.isnan(values)).tolist() == [2, 4]
    pr_curves_png(
        probabilities, targets, ["zero", "one", "two", "three", "four", "five"], tmp_path / "pr.png"
    )
    assert len(drawn.figures[0].axes[0].lines) == 4
    assert "no samples of 2 classes: two, four" in drawn.texts
    assert "two" not in drawn.texts


def test_odd_input_is_drawn(tmp_path):
    ordinary, targets = scored(6, 50, 3)
    for probabilities, names in [
        (np.full_like(ordinary, np.nan), ["a", "b", "c"]),
        (np.zeros_like(ordinary), ["a" * 80, "猫 $x$", "_c"]),
    ]:
        pr_curves_png(probabilities, targets, names, tmp_path / "pr.png")
        assert pixels(tmp_path / "pr.png").size > 0
    pr_curves_png(ordinary[:1], targets[:1], ["a", "b", "c"], tmp_path / "pr.png")
    pr_curves_png(ordinary[:0], targets[:0], ["a", "b", "c"], tmp_path / "pr.png")


def test_other_shapes_are_refused(tmp_path):
    probabilities, targets = scored(7, 50, 3)
    with pytest.raises(ValueError, match=r"probabilities of shape \(50, 3\), expected \(50, 2\)"):
        pr_curves_png(probabilities, targets, ["a", "b"], tmp_path / "pr.png")


def test_no_global_state(tmp_path):
    assert "matplotlib.pyplot" not in sys.modules
