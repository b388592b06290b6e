"""Range and order of labels."""

import pytest
import torch

from visionsweep.data.labels import check_labels, sorted_class_names
from visionsweep.errors import DataError


def test_labels_must_be_in_range() -> None:
    check_labels(torch.tensor([0, 9]), 10, "train")
    check_labels(torch.tensor([], dtype=torch.int64), 10, "train")
    for targets, label in (([0, 12, 11], 12), ([10], 10), ([0, -1], -1)):
        with pytest.raises(DataError, match=rf"label {label} in train, .*\(labels 0\.\.9\)"):
            check_labels(torch.tensor(targets), 10, "train")


def test_class_order_is_that_of_numbers_and_natural_for_words() -> None:
    assert sorted_class_names(["10", "9", "9", "-2"]) == ["-2", "9", "10"]
    assert sorted_class_names(["10", "9", "x"]) == ["9", "10", "x"]
    assert sorted_class_names(["img10", "b", "img2", "B1"]) == ["B1", "b", "img2", "img10"]
