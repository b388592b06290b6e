import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as expected_confusion_matrix

from visionsweep.report.run.confusion_matrix import confusion_matrix, draw_confusion_matrix


@pytest.mark.parametrize("num_classes", [2, 7, 30])
def test_matrix_is_that_of_scikit_learn(num_classes):
    preds, targets = np.random.default_rng(0).integers(0, num_classes, (2, 50))
    expected = expected_confusion_matrix(targets, preds, labels=range(num_classes))
    assert np.array_equal(confusion_matrix(preds, targets, num_classes), expected)


def test_colours_are_shares_of_the_row_and_counts_stand_in_the_cells(figures, tmp_path):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1200, 0, 400]])
    draw_confusion_matrix(matrix, ["a", "b", "c"], tmp_path / "m.png")
    axes = figures[0].axes[0]
    shares = axes.images[0].get_array()
    assert np.asarray(shares[[0, 2]]) == pytest.approx(np.array([[0.75, 0.25, 0], [0.75, 0, 0.25]]))
    assert np.ma.getmaskarray(shares)[1].all()  # no samples: gray, no division by zero
    texts = {tuple(map(int, text.get_position()[::-1])): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "3", (0, 1): "1", (2, 0): "1200", (2, 2): "400"}


@pytest.mark.parametrize(("num_classes", "num_names"), [(20, 20), (21, 21), (120, 40)])
def test_many_classes_have_fewer_texts(num_classes, num_names, figures, tmp_path):
    names = [f"class {k}" for k in range(num_classes)]
    draw_confusion_matrix(np.eye(num_classes, dtype=np.int64), names, tmp_path / "m.png")
    axes = figures[0].axes[0]
    assert [len(axes.texts), len(axes.get_yticks())] == [20 * (num_classes == 20), num_names]
    step = num_classes // num_names
    assert [label.get_text() for label in axes.get_xticklabels()][1] == f"class {step}"
