import sys

import numpy as np
import pytest
from PIL import Image

from visionsweep.report.run.confusion_matrix import confusion_matrix_png
from visionsweep.report.run.learning_curves import curves_png


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("num_classes", [2, 10, 20, 21, 100])
def test_confusion_matrix_of_any_size(num_classes, tmp_path):
    matrix = np.random.default_rng(0).integers(0, 50, (num_classes, num_classes))
    path = tmp_path / "matrix.png"
    confusion_matrix_png(matrix, [f"class {i}" for i in range(num_classes)], path)
    height, width, _ = pixels(path).shape
    assert 200 < height < 1600
    assert 200 < width < 1800
    assert [file.name for file in tmp_path.iterdir()] == ["matrix.png"]


def test_colours_are_shares_of_the_row(tmp_path):
    # The same shares from very different counts; the numbers in the cells differ, so many classes without them.
    names = [str(i) for i in range(30)]
    shares = np.eye(30, dtype=np.int64) * 3 + 1
    confusion_matrix_png(shares, names, tmp_path / "a.png")
    confusion_matrix_png(shares * np.arange(1, 31)[:, None], names, tmp_path / "b.png")
    a, b = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert a.shape == b.shape
    assert np.array_equal(a[60:], b[60:])  # below the title, which counts
    assert not np.array_equal(a[:60], b[:60])


def test_a_class_without_samples_is_gray_not_a_division_by_zero(tmp_path):
    matrix = np.diag([5, 0, 7])
    confusion_matrix_png(matrix, ["a", "b", "c"], tmp_path / "m.png")
    is_gray = (pixels(tmp_path / "m.png") == 0xE6).all(axis=-1)
    assert is_gray.mean() > 0.05


def test_a_matrix_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"matrix of shape \(3, 3\) for 2 class names"):
        confusion_matrix_png(np.eye(3, dtype=np.int64), ["a", "b"], tmp_path / "m.png")


def test_curves_have_a_panel_for_what_was_recorded(tmp_path):
    losses = [{"train/loss": 1.0 / epoch, "val/loss": 1.2 / epoch} for epoch in range(1, 6)]
    everything = [row | {"val/f1_macro": 0.5, "train/lr": 1e-3} for row in losses]
    curves_png(losses, tmp_path / "one.png", best_epoch=5)
    curves_png(everything, tmp_path / "three.png", best_epoch=5)
    one, three = pixels(tmp_path / "one.png"), pixels(tmp_path / "three.png")
    assert three.shape[1] > 2.5 * one.shape[1]


def test_curves_take_one_epoch_and_nan(tmp_path):
    curves_png([{"train/loss": float("nan"), "val/f1_macro": 0.1}], tmp_path / "c.png")
    assert pixels(tmp_path / "c.png").size > 0


def test_no_global_state(tmp_path):
    curves_png([{"train/loss": 1.0}], tmp_path / "c.png")
    assert "matplotlib.pyplot" not in sys.modules
