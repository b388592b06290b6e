"""Copies of images with another label or on the other side of the split, for the report."""

from types import SimpleNamespace

import numpy as np
import torch

from visionsweep.data.dataset import ImageSet
from visionsweep.run.copies import conflicting_copies
from visionsweep.rundir.copies import MAX_PAIRS, read_copies, write_copies
from visionsweep.rundir.layout import COPIES


def image_set(first, targets, size=8, **more):
    """Return images whose pixels are all `first`, `first` + 1, ..."""
    count = len(targets)
    values = torch.arange(first, first + count, dtype=torch.uint8)
    images = values[:, None, None, None].repeat(1, 3, size, size)
    ids = [f"{n}.png" for n in range(first, first + count)]
    return ImageSet(images, torch.tensor(targets), ids, **more)


def parts_of(copy_of, targets, val, size=8, folds=None, test=None):
    count = len(targets)
    train = image_set(0, targets, size, copy_of=copy_of, folds=folds)
    dataset = SimpleNamespace(train=train, test=test, class_names=["cat", "dog"])
    rows = np.arange(count)
    is_val = np.isin(rows, val)
    return SimpleNamespace(dataset=dataset, train_indices=rows[~is_val], val_indices=rows[is_val])


def test_pairs_with_other_labels_come_first(tmp_path):
    # 1 is 0 on the other side; 3 is 2 with another label; 5 is 4, as it should be
    parts = parts_of([0, 0, 2, 2, 4, 4], [0, 0, 0, 1, 1, 1], val=[1])
    write_copies(tmp_path, conflicting_copies(parts))
    copies = read_copies(tmp_path)
    assert copies.ids.tolist() == [["2.png", "3.png"], ["0.png", "1.png"]]
    assert copies.classes.tolist() == [["cat", "dog"], ["cat", "cat"]]
    assert copies.splits.tolist() == [["train", "train"], ["train", "val"]]
    assert copies.images[:, :, 0, 0, 0].tolist() == [[2, 3], [0, 1]]
    assert copies.num_pairs == 2


def test_test_images_that_look_like_one_for_training_are_shown_too():
    test = image_set(50, [1, 0, 0], like_train=np.array([[4, 0], [2, 2]]))
    parts = parts_of([0, 1, 2, 2, 4], [0, 0, 0, 0, 0], val=[4], test=test)
    copies = conflicting_copies(parts)  # 3 is 2, as it should be
    assert copies.ids.tolist() == [["4.png", "50.png"], ["2.png", "52.png"]]
    assert copies.classes.tolist() == [["cat", "dog"], ["cat", "cat"]]
    assert copies.splits.tolist() == [["val", "test"], ["train", "test"]]
    assert copies.images[:, :, 0, 0, 0].tolist() == [[4, 50], [2, 52]]
    none_alike = image_set(50, [1], like_train=np.empty((0, 2), dtype=np.int64))
    assert conflicting_copies(parts_of(None, [0, 1], val=[], test=none_alike)) is None


def test_copies_in_two_folds_of_the_data_are_shown_by_the_runs_of_all_folds():
    """Those of folds 1 and 2 too by the run of fold 0, which trains on both."""
    folds = [0, 1, 1, 2, -1, 0]
    copy_of, targets = [0, 1, 1, 1, 1, 5], [0] * 6
    found = [
        conflicting_copies(parts_of(copy_of, targets, val=val, folds=folds))
        for val in ([0, 5], [1, 2])
    ]
    for copies in found:
        assert copies.ids.tolist() == [["1.png", "3.png"], ["1.png", "4.png"]]
        assert copies.splits.tolist() == [["fold 1", "fold 2"], ["fold 1", "train"]]
    # a validation part of its own is one fold
    own = parts_of([0, 0], [0, 0], val=[1], folds=[-1, 0])
    assert conflicting_copies(own).splits.tolist() == [["train", "val"]]


def test_without_conflicts_there_is_nothing_to_show():
    assert conflicting_copies(parts_of(None, [0, 1], val=[])) is None
    assert conflicting_copies(parts_of([0, 0, 2], [1, 1, 0], val=[])) is None


def test_many_pairs_are_counted_and_large_pictures_made_smaller():
    count = 2 * MAX_PAIRS
    parts = parts_of([0] * count, [0] + [1] * (count - 1), val=[], size=200)
    copies = conflicting_copies(parts)
    assert (len(copies.ids), copies.num_pairs) == (MAX_PAIRS, count - 1)
    assert copies.images.shape == (MAX_PAIRS, 2, 3, 67, 67)


def test_a_damaged_file_counts_as_none(tmp_path):
    assert read_copies(tmp_path) is None
    (tmp_path / COPIES).write_bytes(b"PK\x03\x04 no archive")
    assert read_copies(tmp_path) is None
