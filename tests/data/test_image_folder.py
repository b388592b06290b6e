"""image_folder: classes, the official test split, and mistakes in the layout of folders."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionsweep.data.image_folder import load_image_folder
from visionsweep.data.streamed import StreamedImages
from visionsweep.errors import ConfigError, DataError


def make_images(folder: Path, count: int, color: int) -> None:
    """Write `count` different 8x8 images of about one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = Image.new("RGB", (8, 8), (color, color, color))
        image.putpixel((0, 0), (index, len(folder.as_posix()) % 256, color))
        image.save(folder / f"{index}.png")


def load(root: Path | str | None, **settings: object) -> object:
    return load_image_folder(
        None if root is None else str(root), image_size=8, cache_dir="none", **settings
    )


def test_classes_by_name_and_files_by_path(tmp_path: Path) -> None:
    make_images(tmp_path / "dog", 2, 200)
    make_images(tmp_path / "cat" / "indoor", 1, 100)
    make_images(tmp_path / "cat", 1, 100)
    Image.new("RGB", (8, 8)).save(tmp_path / "dog" / "UPPER.JPG")
    dataset = load(tmp_path)
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.train.ids == [
        "cat/0.png",
        "cat/indoor/0.png",
        "dog/0.png",
        "dog/1.png",
        "dog/UPPER.JPG",
    ]
    assert dataset.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert dataset.train.images.shape == (5, 3, 8, 8)
    assert dataset.train.images[2, 0, 4, 4] == 200
    assert dataset.test is None


def test_hidden_files_are_ignored_and_others_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a", "b", ".cache", "a/.thumbnails"):
        make_images(tmp_path / name, 1, 9)
    (tmp_path / "a" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").write_text("x")
    dataset = load(tmp_path)
    assert dataset.class_names == ["a", "b"]
    assert len(dataset.train) == 2
    assert "left out: .cache/ (hidden), 1 file: .txt (1)" in caplog.text


def test_a_folder_without_images_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make_images(tmp_path / "a", 1, 1)
    (tmp_path / "b").mkdir()
    make_images(tmp_path / "c", 2, 3)
    dataset = load(tmp_path)
    assert dataset.class_names == ["a", "c"]
    assert dataset.train.targets.tolist() == [0, 1, 1]
    assert "classes: a, c (1 / 2 images); left out: b/ (no images)" in caplog.text


def test_a_class_without_training_images_keeps_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("train/a", "train/c", "test/b"):
        make_images(tmp_path / place, 1, len(place) + ord(place[-1]))
    (tmp_path / "train" / "b").mkdir()
    dataset = load(tmp_path)
    assert dataset.train.targets.tolist() == [0, 2]
    assert dataset.test.targets.tolist() == [1]
    assert "1 of 3 classes have no image: b (2 images in all)" in caplog.text


def test_train_and_test_folders_become_the_official_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for part, count in (("train", 3), ("test", 1), ("val", 2)):
        for index, name in enumerate(("a", "b")):
            make_images(tmp_path / part / name, count, 50 * index + 10 * len(part))
    dataset = load(tmp_path)
    assert dataset.class_names == ["a", "b"]
    assert len(dataset.train) == 6 + 4
    assert dataset.train.folds == [-1] * 6 + [0] * 4
    assert dataset.train.ids[6:8] == ["val/a/0.png", "val/a/1.png"]
    assert dataset.test is not None
    assert dataset.test.ids == ["test/a/0.png", "test/b/0.png"]
    assert dataset.test.targets.tolist() == [0, 1]
    assert (
        "classes: a, b (3 / 3 images); validation: 4 images from val/; test: 2 images from test/"
        in caplog.text
    )


def test_the_limit_of_decoded_images_counts_all_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for index, name in enumerate(("a", "b")):
            make_images(tmp_path / part / name, 3, 50 * index + 10 * len(part))
    one_part = 6 * 3 * 8 * 8 / 1e9
    whole = load(tmp_path, cache_limit_gb=2 * one_part)
    assert isinstance(whole.train.images, torch.Tensor)
    for images in (load(tmp_path, cache_limit_gb=1.9 * one_part), load(tmp_path, cache_limit_gb=0)):
        assert isinstance(images.train.images, StreamedImages)
        assert isinstance(images.test.images, StreamedImages)


def test_files_in_train_and_test_are_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for index, name in enumerate(("a", "b")):
            make_images(tmp_path / part / name, 2, 100 * index + 10 * len(part))
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "test" / "b" / "copy.png")
    with pytest.raises(
        DataError,
        match=r"data\.root: 1 of 5 test files are in train too, e\.g\. .*copy\.png = .*0\.png",
    ):
        load(tmp_path)


def test_a_class_only_in_test_is_refused(tmp_path: Path) -> None:
    for name in ("train/horse", "train/cow", "test/hrose"):
        make_images(tmp_path / name, 1, len(name))
    with pytest.raises(
        DataError, match=r"class hrose .*not among the 2 classes.*did you mean horse\?"
    ):
        load(tmp_path)


def test_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no class folder; expected at least 2"):
        load(tmp_path)
    make_images(tmp_path, 3, 7)
    with pytest.raises(DataError, match=r"holds 3 images but no class folder"):
        load(tmp_path)
    make_images(tmp_path / "only", 1, 1)
    with pytest.raises(DataError, match=r"holds only images of the class only"):
        load(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "only" / "0.png").rename(tmp_path / "only" / "0.heic")
    with pytest.raises(
        DataError, match=r"holds no image, but 1 file: \.heic \(1\); expected at least 2 classes"
    ):
        load(tmp_path)


def test_missing_and_unset_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    where = rf"{tmp_path}/x/train does not exist \(current directory: {tmp_path}\)"
    with pytest.raises(DataError, match=rf"data\.root: {where}; set it to the folder"):
        load("x/train")
    with pytest.raises(ConfigError, match=r"data\.root is not set: .*data=digits"):
        load(None)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data\.root: .*file is not a folder"):
        load("file")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_images(tmp_path / "photos" / "a", 1, 1)
    make_images(tmp_path / "photos" / "b", 1, 2)
    assert len(load("~/photos").train) == 2


def test_one_corrupted_image(tmp_path: Path) -> None:
    make_images(tmp_path / "a", 3, 1)
    make_images(tmp_path / "b", 3, 2)
    (tmp_path / "a" / "1.png").write_text("broken")
    with pytest.raises(
        DataError,
        match=r"a/1\.png \(not an image\); 1 of 6 files.*data\.on_bad_image=skip",
    ):
        load(tmp_path)
    dataset = load(tmp_path, on_bad_image="skip")
    assert dataset.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert dataset.train.ids == ["a/0.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"]
    assert dataset.bad_images == [str(tmp_path / "a" / "1.png")]


def test_grey_and_height_before_width(tmp_path: Path) -> None:
    make_images(tmp_path / "a", 1, 10)
    make_images(tmp_path / "b", 1, 20)
    dataset = load_image_folder(
        str(tmp_path), image_size=[4, 6], channels=1, cache_dir="none", flips=False
    )
    assert dataset.train.images.shape == (2, 1, 4, 6)
    assert dataset.preprocessing.image_size == (4, 6)
    assert not dataset.flips
    assert np.unique(dataset.train.images[1, 0, 2:].numpy()).tolist() == [20]
