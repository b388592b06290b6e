import csv

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from visionsweep.report.run.per_class import COLUMNS, write_per_class

RATIOS = ("precision", "recall", "f1")


def table(matrix, names, tmp_path, **options):
    write_per_class(matrix, names, tmp_path / "per_class.csv", **options)
    with (tmp_path / "per_class.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def samples(matrix):
    """Targets and predictions that have this confusion matrix."""
    targets, preds = np.indices(matrix.shape).reshape(2, -1)
    return targets.repeat(matrix.ravel()), preds.repeat(matrix.ravel())


def random_matrix(seed, num_classes):
    generator = np.random.default_rng(seed)
    matrix = generator.integers(0, 6, (num_classes, num_classes)) + np.diag(
        generator.integers(0, 40, num_classes)
    )
    matrix[1, :] = 0  # without targets
    matrix[:, 2] = 0  # never predicted
    matrix[3, :] = matrix[:, 3] = 0  # neither
    return matrix


@pytest.mark.parametrize("num_classes", [4, 10, 101])
def test_ratios_are_those_of_scikit_learn(num_classes, tmp_path):
    matrix = random_matrix(num_classes, num_classes)
    rows = table(matrix, [f"class {i}" for i in range(num_classes)], tmp_path)
    targets, preds = samples(matrix)
    options = {"labels": range(num_classes), "zero_division": 0}
    per_class = precision_recall_fscore_support(targets, preds, **options)
    for position, name in enumerate(RATIOS):
        assert [float(row[name]) for row in rows[:-2]] == pytest.approx(
            per_class[position], abs=5.1e-5
        )
    assert [int(row["support"]) for row in rows[:-2]] == per_class[3].tolist()
    for row, average in zip(rows[-2:], ("macro", "weighted"), strict=True):
        expected = precision_recall_fscore_support(targets, preds, average=average, **options)[:3]
        assert row["class"] == f"{average} avg"
        assert [float(row[name]) for name in RATIOS] == pytest.approx(expected, abs=5.1e-5)
        assert int(row["support"]) == len(targets)


def test_absent_classes_can_be_left_out_of_the_macro_average(tmp_path):
    matrix = random_matrix(0, 8)
    macro = table(matrix, list("abcdefgh"), tmp_path, absent_classes="skip")[-2]
    expected = precision_recall_fscore_support(*samples(matrix), average="macro", zero_division=0)[
        :3
    ]
    assert [float(macro[name]) for name in RATIOS] == pytest.approx(expected, abs=5.1e-5)


def test_most_confused_with_is_the_largest_mistake_of_the_row(tmp_path):
    matrix = np.array([[90, 3, 7], [4, 50, 4], [0, 0, 8]])
    rows = table(matrix, ["cat", "dog", "ant"], tmp_path)
    assert [(row["most_confused_with"], row["confused"]) for row in rows[:3]] == [
        ("ant", "7"),
        ("cat", "4"),
        ("", ""),
    ]


def test_names_arrive_whole(tmp_path):
    names = ['with, comma and "quote"', "Größe", "猫", "=1+1", "a\udcffb"]
    rows = table(np.eye(5, dtype=np.int64), names, tmp_path)
    assert [row["class"] for row in rows[:4]] == names[:4]
    assert rows[4]["class"] == "a\\udcffb"
    assert tuple(rows[0]) == COLUMNS
