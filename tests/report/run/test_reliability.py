import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from tests.report.run.drawn import Drawn, pixels
from visionsweep.report.run import reliability
from visionsweep.report.run.reliability import expected_calibration_error, reliability_png


def guo_2017(probabilities, targets, num_bins):
    """Equations 2, 3 and 5 of the paper, sample by sample."""
    error = 0.0
    for m in range(1, num_bins + 1):
        low, high = (m - 1) / num_bins, m / num_bins
        inside = [i for i, row in enumerate(probabilities) if low < float(max(row)) <= high]
        if inside:
            accuracy = sum(int(np.argmax(probabilities[i])) == targets[i] for i in inside) / len(
                inside
            )
            confidence = sum(float(max(probabilities[i])) for i in inside) / len(inside)
            error += len(inside) / len(targets) * abs(accuracy - confidence)
    return error


def scored(seed, num_samples, num_classes):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(num_classes, 0.3), num_samples).astype(np.float32)
    return probabilities, generator.integers(0, num_classes, num_samples)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_is_that_of_the_paper(num_classes, num_bins):
    probabilities, targets = scored(num_classes, 500, num_classes)
    expected = guo_2017(probabilities, targets, num_bins)
    assert expected_calibration_error(probabilities, targets, num_bins) == pytest.approx(
        expected, abs=1e-12
    )


def test_a_bin_holds_its_upper_edge():
    # Confidence 0.5, right, and 0.75, wrong, in two bins: (|1 - 0.5| + |0 - 0.75|) / 2. With 0.5 in the upper bin
    # the two would share it: |0.5 - 0.625|.
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
    assert expected_calibration_error(probabilities, np.array([0, 1]), 2) == pytest.approx(0.625)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not():
    probabilities = np.array([[1.0000001, 0], [0, 1]], np.float32)
    assert expected_calibration_error(probabilities, np.array([0, 1])) == pytest.approx(0, abs=1e-6)
    assert expected_calibration_error(probabilities, np.array([1, 0])) == pytest.approx(1)


def test_the_diagram_shows_accuracy_confidence_and_counts(monkeypatch, tmp_path):
    drawn = Drawn(monkeypatch, reliability)
    # Two bins are filled: 0.62 in (9/15, 10/15] with 3 of 4 right, 0.98 in the last with 4 of 6.
    first = np.repeat([0.62, 0.98], [4, 6])
    probabilities = np.column_stack([first, 1 - first]).astype(np.float32)
    targets = np.array([0, 0, 0, 1, 0, 0, 0, 0, 1, 1])
    reliability_png(probabilities, targets, tmp_path / "r.png")
    assert pixels(tmp_path / "r.png").size > 0

    def boxes(collection):
        return [
            [*path.vertices.min(axis=0), *path.vertices.max(axis=0)]
            for path in collection.get_paths()
        ]

    upper, lower = drawn.figures[0].axes
    bars, gaps = (
        boxes(collection)
        for collection in upper.collections
        if isinstance(collection, PolyCollection)
    )
    assert bars == pytest.approx(np.array([[9 / 15, 0, 10 / 15, 0.75], [14 / 15, 0, 1, 4 / 6]]))
    # A gap is narrower than its bin, so that it can be seen on the bar: 3/10 of the bin are free at each side.
    expected = [[9.3 / 15, 0.62, 9.7 / 15, 0.75], [14.3 / 15, 4 / 6, 14.7 / 15, 0.98]]
    assert gaps == pytest.approx(np.array(expected), abs=1e-6)
    assert boxes(lower.collections[-1]) == pytest.approx(
        np.array([[9 / 15, 0, 10 / 15, 0.4], [14 / 15, 0, 1, 0.6]])
    )
    error = 0.4 * (0.75 - 0.62) + 0.6 * (0.98 - 4 / 6)
    expected = {
        f"expected calibration error {error:.3f}",
        "accuracy 0.700",
        f"mean confidence {0.248 + 0.588:.3f}",
    }
    assert expected <= set(drawn.texts)


def test_odd_input_is_drawn(tmp_path):
    probabilities, targets = scored(0, 20, 3)
    for rows in (
        probabilities[:1],
        np.full_like(probabilities, np.nan),
        np.zeros_like(probabilities),
    ):
        reliability_png(rows, targets[: len(rows)], tmp_path / "r.png")
        assert pixels(tmp_path / "r.png").size > 0


def test_other_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"probabilities of shape \(5, 2\) for 4 targets"):
        reliability_png(np.ones((5, 2), np.float32), np.zeros(4, np.int64), tmp_path / "r.png")
