import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from tests.report.run.made import make_probabilities
from visionsweep.report.run.reliability import calibration, draw_reliability


def guo_2017(probabilities, targets, num_bins):
    """Equations 2, 3 and 5 of the paper, sample by sample."""
    error = 0.0
    for m in range(1, num_bins + 1):
        low, high = (m - 1) / num_bins, m / num_bins
        inside = [i for i, row in enumerate(probabilities) if low < float(max(row)) <= high]
        if inside:
            num_correct = sum(int(np.argmax(probabilities[i])) == targets[i] for i in inside)
            confidence = sum(float(max(probabilities[i])) for i in inside) / len(inside)
            gap = abs(num_correct / len(inside) - confidence)
            error += len(inside) / len(targets) * gap
    return error


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("num_bins", [1, 15])
def test_calibration_error_is_that_of_the_paper(num_classes, num_bins):
    probabilities, targets = make_probabilities(num_classes, 500, num_classes)
    binned = calibration(probabilities, targets, num_bins)
    assert binned.error == pytest.approx(guo_2017(probabilities, targets, num_bins), abs=1e-12)


def test_bins_are_those_of_scikit_learn():
    probabilities, targets = make_probabilities(1, 500, 4)
    binned = calibration(probabilities, targets, 15)
    is_correct = probabilities.argmax(axis=1) == targets
    accuracies, confidences = calibration_curve(is_correct, probabilities.max(axis=1), n_bins=15)
    is_filled = binned.counts > 0
    assert binned.accuracies[is_filled] == pytest.approx(accuracies)
    assert binned.confidences[is_filled] == pytest.approx(confidences)


def test_a_bin_holds_its_upper_edge():
    # In two bins, 0.5 (right) and 0.75 (wrong): (|1 - 0.5| + |0 - 0.75|) / 2. With 0.5 in the
    # upper bin the two would share it: |0.5 - 0.625|.
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
    assert calibration(probabilities, np.array([0, 1]), 2).error == pytest.approx(0.625)


def test_a_probability_a_little_above_one_is_in_the_last_bin():
    probabilities = np.array([[1.0000001, 0], [0, 1]], np.float32)
    assert calibration(probabilities, np.array([0, 1])).error == pytest.approx(0, abs=1e-6)
    assert calibration(probabilities, np.array([1, 0])).error == pytest.approx(1)


def test_the_diagram_shows_accuracy_confidence_and_counts(figures, tmp_path):
    # Two bins are filled: 0.62 in (9/15, 10/15] with 3 of 4 right, 0.98 in the last with 4 of 6.
    first = np.repeat([0.62, 0.98], [4, 6])
    probabilities = np.column_stack([first, 1 - first]).astype(np.float32)
    targets = np.array([0, 0, 0, 1, 0, 0, 0, 0, 1, 1])
    draw_reliability(probabilities, targets, tmp_path / "r.png")

    def heights(bars):
        return {
            k: (bar.get_y(), bar.get_y() + bar.get_height())
            for k, bar in enumerate(bars)
            if bar.get_height()
        }

    above, below = figures[0].axes
    accuracies, gaps = map(heights, above.containers)
    assert accuracies == {9: (0, 0.75), 14: (0, pytest.approx(4 / 6))}
    assert gaps == {
        9: (0.75, pytest.approx(0.62)),
        14: (pytest.approx(4 / 6), pytest.approx(0.98)),
    }
    assert heights(below.containers[0]) == {9: (0, 0.4), 14: (0, 0.6)}
    error = 0.4 * (0.75 - 0.62) + 0.6 * (0.98 - 4 / 6)
    assert above.get_title("left") == f"expected calibration error {error:.3f}"
    shown = [line.get_label() for line in below.lines]
    assert shown == ["accuracy 0.700", f"mean confidence {0.248 + 0.588:.3f}"]
