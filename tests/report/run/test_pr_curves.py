import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from tests.report.run.made import make_probabilities
from visionsweep.report.run.pr_curves import class_curves, draw_pr_curves, micro_curve


@pytest.mark.parametrize(
    ("num_classes", "decimals"), [(2, None), (2, 1), (10, None), (10, 1), (50, 2)]
)
def test_curves_are_those_of_scikit_learn(num_classes, decimals):
    probabilities, targets = make_probabilities(2, 400, num_classes, decimals)
    is_own = targets[:, None] == np.arange(num_classes)
    curves = class_curves(probabilities, targets)
    cases = [(curves[k], is_own[:, k], probabilities[:, k]) for k in range(num_classes)]
    cases.append((micro_curve(probabilities, targets), is_own.ravel(), probabilities.ravel()))
    for (precision, recall), is_positive, scores in cases:
        if not is_positive.any():
            assert precision.size == recall.size == 0
            continue
        expected = average_precision_score(is_positive, scores)
        assert precision.mean() == pytest.approx(expected, rel=1e-9)
        all_precision, all_recall, _ = precision_recall_curve(is_positive, scores)
        # Recall falls: the last point of a recall has the highest threshold.
        points = zip(all_precision[:-1], all_recall[:-1], strict=True)
        expected_points = {round(r, 9): p for p, r in points if r > 0}
        drawn = {round(r, 9): p for p, r in zip(precision, recall, strict=True)}
        assert drawn == pytest.approx(expected_points, rel=1e-9)
        assert (np.diff(recall) >= 0).all()


def labels(figure):
    """The legend: average precision -> name."""
    drawn = [line.get_label() for line in figure.axes[0].lines]
    return [label for label in drawn if label[0].isdigit()]


def test_the_area_under_a_drawn_curve_is_its_average_precision(figures, tmp_path):
    probabilities, targets = make_probabilities(3, 800, 3)
    draw_pr_curves(probabilities, targets, ["a", "b", "_c"], tmp_path / "pr.png")
    expected = {
        name: average_precision_score(targets == k, probabilities[:, k])
        for k, name in enumerate(["a", "b", "_c"])
    }
    axes = figures[0].axes[0]
    for line in axes.lines:
        if line.get_label()[0].isdigit():
            shown, name = line.get_label().split()
            recall, precision = line.get_data()
            assert line.get_drawstyle() == "steps-pre"
            assert np.diff(recall) @ precision[1:] == pytest.approx(expected[name])
            assert shown == f"{expected[name]:.3f}"
    assert len(labels(figures[0])) == 3
    mean = np.mean(list(expected.values()))
    assert axes.get_title("left") == f"mean average precision {mean:.3f}"


def test_of_many_classes_the_lowest_and_the_micro_average_are_drawn(figures, tmp_path):
    probabilities, targets = make_probabilities(4, 900, 30)
    names = [f"class {k}" for k in range(30)]
    draw_pr_curves(probabilities, targets, names, tmp_path / "pr.png")
    expected = [average_precision_score(targets == k, probabilities[:, k]) for k in range(30)]
    is_own = targets[:, None] == np.arange(30)
    micro = average_precision_score(is_own.ravel(), probabilities.ravel())
    lowest = np.argsort(expected)[:10][::-1]
    assert labels(figures[0]) == [
        f"{micro:.3f}  micro average",
        *(f"{expected[k]:.3f}  class {k}" for k in lowest),
    ]
    assert "the 10 lowest of 30 classes" in figures[0].axes[0].get_title("left")


def test_classes_without_samples_are_named(figures, tmp_path):
    probabilities, targets = make_probabilities(5, 300, 6)
    targets = np.where((targets == 2) | (targets == 4), 0, targets)
    draw_pr_curves(probabilities, targets, list("abcdef"), tmp_path / "pr.png")
    draw_pr_curves(probabilities[:0], targets[:0], list("abcdef"), tmp_path / "pr.png")
    assert len(labels(figures[0])) == 4
    assert figures[0].axes[0].get_title("left").endswith("no samples of c, e")
    assert figures[1].axes[0].get_title("left").endswith("no samples of a, b, c, d and 2 more")
