"""Range, order and neighbours of labels."""

import pytest
import torch

from visionsweep.data.labels import check_labels, nearest, sorted_class_names
from visionsweep.errors import DataError


def test_labels_must_be_in_range() -> None:
    check_labels(torch.tensor([0, 9]), 10, "train")
    check_labels(torch.tensor([], dtype=torch.int64), 10, "train")
    with pytest.raises(
        DataError, match=r"label 12 in train, but model\.num_classes=10 \(labels 0\.\.9\)"
    ):
        check_labels(torch.tensor([0, 12, 11]), 10, "train")
    with pytest.raises(DataError, match=r"label 10 in test, but model\.num_classes=10"):
        check_labels(torch.tensor([10]), 10, "test")
    with pytest.raises(DataError, match=r"label -1 in train"):
        check_labels(torch.tensor([0, -1]), 10, "train")


def test_integers_sort_by_value_and_words_by_name() -> None:
    assert sorted_class_names(["10", "9", "9", "-2"]) == ["-2", "9", "10"]
    assert sorted_class_names(["10", "9", "x"]) == ["10", "9", "x"]


def test_nearest_name_ends_the_sentence() -> None:
    assert nearest("lable", ["path", "label"]) == "; did you mean label?"
    assert nearest("qqq", ["path", "label"]) == "."
