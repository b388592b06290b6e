import csv
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from tests.report.run.made import make_logits, make_run
from visionsweep.errors import DataError
from visionsweep.report.run.confusion_matrix import draw_confusion_matrix
from visionsweep.report.run.drawing import drawing_style
from visionsweep.report.run.pictures import MISTAKES, PER_CLASS, draw
from visionsweep.rundir.layout import PREDICTIONS
from visionsweep.rundir.predictions import Predictions, SplitPredictions, write_predictions

ODD_NAMES = ["$\\frac{1$", "猫 \udcff", "_hidden", "W" * 60, "a\nb"]


def test_pictures_are_drawn_from_the_files_of_a_run(tmp_path):
    make_run(tmp_path, ODD_NAMES, num_samples=12)
    paths = draw(tmp_path)
    assert sorted(paths) == sorted(
        f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()
    )
    for path in paths:
        if path.endswith(".png"):
            with Image.open(tmp_path / path) as image:
                assert 200 < image.width < 1500
                assert np.ptp(np.asarray(image.convert("L"))) > 200
    assert "matplotlib.pyplot" not in sys.modules


def test_the_same_run_gives_the_same_bytes(tmp_path):
    matrix = np.array([[3, 1], [0, 2]])
    for name in ("a.png", "b.png"):
        with drawing_style([]):
            draw_confusion_matrix(matrix, ["cat", "dog"], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_pictures_show_the_validation_predictions(figures, tmp_path):
    val = make_run(tmp_path, ["a", "b", "c"])
    draw(tmp_path)
    num_correct = int((val.logits.argmax(axis=1) == val.targets).sum())
    matrix, curves, *_, mistakes = figures
    assert matrix.axes[0].get_title("left") == f"{num_correct} of 60 validation images correct"
    assert [axes.get_title("left") for axes in curves.axes] == ["loss"]
    best = max(p.max() for p in val.probabilities()[val.logits.argmax(axis=1) != val.targets])
    assert mistakes.axes[0].get_xlabel().startswith(f"{best:.2f}")


def test_absent_classes_of_the_config_are_used(figures, tmp_path):
    names = ["a", "b", "c"]
    make_run(tmp_path, names)
    logits = np.where(np.arange(3) == 2, -99, make_logits(0, 60, 3)[0]).astype(np.float32)
    targets = make_logits(0, 60, 3)[1] % 2
    write_predictions(
        tmp_path,
        Predictions(
            names,
            SplitPredictions(np.array(["x"] * 60), targets, logits),
            None,
            np.zeros(0, np.int64),
            np.zeros((0, 1, 8, 8), np.uint8),
        ),
    )
    draw(tmp_path)
    with (tmp_path / PER_CLASS).open(newline="") as file:
        macro = next(row for row in csv.DictReader(file) if row["class"] == "macro avg")
    expected = f1_score(targets, logits.argmax(axis=1), average="macro")  # skips class c
    assert float(macro["f1"]) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_logits_without_meaning_are_drawn(value, tmp_path, figures):
    make_run(tmp_path, ["a", "b"], logits=np.full((60, 2), value, np.float32))
    assert len(draw(tmp_path)) == 6


def test_a_run_without_predictions_is_refused(tmp_path):
    with pytest.raises(DataError, match=PREDICTIONS):
        draw(tmp_path)


@pytest.mark.slow
def test_a_thousand_classes_take_seconds(tmp_path):
    make_run(tmp_path, [f"n{k:08d}" for k in range(1000)], num_samples=10_000)
    draw(tmp_path)
    with Image.open(tmp_path / MISTAKES) as image:
        assert image.width > 1000
