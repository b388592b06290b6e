"""Which folders below data.root are parts of the data, classes, or left out."""

import os
from pathlib import Path

import pytest

from tests.data.test_image_folder import load, make_images
from visionsweep.data.folders import find_layout
from visionsweep.errors import DataError


def make(root: Path, *places: str) -> None:
    """Write one image of its own for each place; a place with a slash at its end stays empty."""
    for index, place in enumerate(places):
        if place.endswith("/"):
            (root / place).mkdir(parents=True, exist_ok=True)
        else:
            make_images(root / place, 1, index)


PARTS = {
    "any case": (["Training/a", "Training/b", "TESTING/a", "Validation/b"], "Training", "TESTING"),
    "beside other folders": (["train/a", "train/b", "notes/", "extra"], "train", None),
    "classes only": (["a", "b"], ".", None),
    "classes named like parts": (["train", "plane", "car"], ".", None),
    "test is unlabelled": (["train/a", "train/b", "test"], "train", None),
    "test is unlabelled in a folder": (["train/a", "train/b", "test/images"], "train", None),
    "unlabelled beside classes": (["a", "b", "test"], ".", None),
    "wrapped": (["photos/train/a", "photos/train/b"], "photos/train", None),
    "wrapped twice": (["x/photos/a", "x/photos/b"], "x/photos", None),
    "each part wrapped": (
        [f"seg_{part}/seg_{part}/{name}" for part in ("train", "test") for name in ("a", "b")],
        "seg_train/seg_train",
        "seg_test/seg_test",
    ),
    "training images only": (["photos/train/a", "photos/train/b"], "photos/train", None),
    "several words": (["train_set/a", "train_set/b", "test_set/a", "test_set/b"], "train_set", ...),
    "several words of a class": (["steam_train/old", "steam_train/new", "tram"], ".", None),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts(case: str, tmp_path: Path) -> None:
    places, train, test = PARTS[case]
    make(tmp_path, *places)
    layout = find_layout(tmp_path)
    assert layout.train == tmp_path / train
    if test is ...:
        test = "test_set"
    assert layout.test == (None if test is None else tmp_path / test)


@pytest.mark.parametrize(
    "places",
    [["train", "test"], ["test/a", "test/b"], ["train/a", "train/b", "training/a", "training/b"]],
    ids=" ".join,
)
def test_parts_that_leave_no_training_images(places: list[str], tmp_path: Path) -> None:
    make(tmp_path, *places)
    with pytest.raises(DataError, match=r"data\.root: "):
        find_layout(tmp_path)


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    make(tmp_path, "2", "10", ".net", "@eaDir", "__MACOSX/", "outputs/first/figures", "test")
    (tmp_path / "outputs/first/events.jsonl").touch()
    assert load(tmp_path).class_names == ["2", "10"]
    for reason in (".net/ (hidden)", "@eaDir/ (made by", "outputs/ (runs", "test/ (no class"):
        assert reason in caplog.text
    assert "MACOSX" not in caplog.text


def test_each_real_folder_is_read_once(tmp_path: Path) -> None:
    make(tmp_path, "photos/cat/indoor", "photos/dog", "elsewhere/cats")
    photos = tmp_path / "photos"
    os.symlink(".", photos / "cat/again")
    os.symlink("../dog", photos / "cat/dogs")
    os.symlink(photos, photos / "dog/all")
    os.symlink(tmp_path / "elsewhere/cats", photos / "cat/more")
    os.symlink("cat", photos / "a_link_to_cat")
    dataset = load(photos)
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.train.ids == ["cat/indoor/0.png", "cat/more/0.png", "dog/0.png"]


def test_one_class_in_two_unicode_forms(tmp_path: Path) -> None:
    make(tmp_path, "train/caf\u00e9", "train/tea", "test/cafe\u0301", "test/tea")
    dataset = load(tmp_path)
    assert dataset.class_names == ["caf\u00e9", "tea"]
    assert dataset.test.targets.tolist() == [0, 1]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    os.rename(tmp_path / "b", os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"data\.root: the name 'caf.xe9' in .* is not UTF-8"):
        load(tmp_path)
