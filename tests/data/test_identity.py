"""Copies of images: one side of the split, and a line wherever they lead astray."""

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from visionsweep.data.csv_file import load_csv
from visionsweep.data.dataset import ImageDataset
from visionsweep.data.image_folder import load_image_folder
from visionsweep.data.split_manifest import read_split, write_split
from visionsweep.data.splits import split_indices
from visionsweep.errors import DataError

CLOTHING = ROOT.parent / "shared" / "data" / "clothing"
SPLIT = {"val_fraction": 0.3, "fold": None, "num_folds": 5, "seed": 0}


@pytest.fixture
def images(tmp_path: Path) -> Callable[[str, int], list[Path]]:
    """Write different images into a folder below tmp_path."""
    rng = np.random.default_rng(0)

    def write(folder: str, count: int) -> list[Path]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        paths = [tmp_path / folder / f"{index:02}.png" for index in range(count)]
        for path in paths:
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            coarse.resize((48, 48), Image.Resampling.BICUBIC).save(path)
        return paths

    return write


def load(root: Path, **settings: object) -> ImageDataset:
    return load_image_folder(str(root), image_size=32, cache_dir="none", **settings)


def sides(dataset: ImageDataset) -> dict[str, str]:
    """Return id -> side of the split."""
    train = dataset.train
    split = split_indices(
        train.targets.numpy(), train.groups, copy_of=train.copy_of, own_folds=train.folds, **SPLIT
    )
    names = zip(("train", "val"), split, strict=True)
    return {train.ids[index]: name for name, indices in names for index in indices}


def test_copies_stay_on_one_side(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for path in [*images("cat", 20), *images("dog", 20)]:
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    dataset = load(tmp_path)
    side = sides(dataset)
    assert list(side.values()).count("val") == 0.3 * 80  # stratified as without copies
    for name in ("cat", "dog"):
        pairs = [(f"{name}/{index:02}.png", f"{name}/copy_{index:02}.png") for index in range(20)]
        assert all(side[one] == side[other] for one, other in pairs)
        assert [side[one] for one, _ in pairs].count("val") == 6
    assert (
        "40 of 80 images are identical to an earlier one, e.g. cat/copy_00.png = cat/00.png; they "
        "stay on one side of the split"
    ) in caplog.text
    assert "label" not in caplog.text


def test_the_manifest_names_the_first_copy(
    tmp_path: Path, images: Callable[..., list[Path]]
) -> None:
    shutil.copy(images("a", 4)[1], tmp_path / "a" / "again.png")
    images("b", 4)
    dataset = load(tmp_path)
    every = np.arange(len(dataset.train))
    write_split(tmp_path / "split.csv", dataset, every[:4], every[4:])
    groups = {row.id: row.group for row in read_split(tmp_path / "split.csv")}
    assert {name for name, group in groups.items() if group} == {"a/01.png", "a/again.png"}
    assert groups["a/again.png"] == "a/01.png"


def test_data_without_copies_is_split_as_ever(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    images("a", 10)
    images("b", 10)
    dataset = load(tmp_path)
    assert dataset.train.copy_of is None
    assert "identical" not in caplog.text


def test_a_copy_with_another_label_is_named(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    images("b", 5)
    for index, path in enumerate(images("a", 5)[:3]):
        shutil.copy(path, tmp_path / "b" / f"c{index}.png")
    side = sides(load(tmp_path))
    assert (
        "3 of 13 images are identical to one with another label, e.g. b/c0.png = a/00.png (b, a). "
        "Correct the labels"
    ) in caplog.text
    assert all(side[f"b/c{index}.png"] == side[f"a/{index:02}.png"] for index in range(3))


def test_copies_across_the_own_validation_split_are_named(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        paths = images(f"train/{name}", 5)
        images(f"val/{name}", 5)
        shutil.copy(paths[2], tmp_path / "val" / name / "copy.png")
    load(tmp_path)
    assert (
        "2 of 22 images are identical to one on another side of the data's own split (training and "
        "validation), e.g. val/a/copy.png = train/a/02.png: validation scores will be too good"
    ) in caplog.text


@pytest.mark.parametrize("part", ["train", "val"])
def test_copies_of_test_images_are_refused(
    tmp_path: Path, images: Callable[..., list[Path]], part: str
) -> None:
    for folder in ("train/a", "train/b", "val/a", "val/b", "test/a", "test/b"):
        images(folder, 4)
    original = tmp_path / part / "b" / "03.png"
    shutil.copy(original, tmp_path / "test" / "a" / "copy.png")
    with pytest.raises(DataError, match="1 of 9 test files are in train too") as caught:
        load(tmp_path)
    assert f"{tmp_path}/test/a/copy.png = {original}" in str(caught.value)


def test_groups_that_share_a_copy_are_one(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    """Persons 0 and 1 share an image, and so do 1 and 2."""
    paths = images("i", 40)
    shutil.copy(paths[0], paths[11])  # person 0 -> person 1
    shutil.copy(paths[12], paths[25])  # 1 -> 2
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        rows = [(f"i/{n:02}.png", "xy"[n % 2], f"p{n // 10}") for n in range(40)]
        csv.writer(stream).writerows([("path", "label", "person"), *rows])
    dataset = load_csv(
        str(tmp_path / "t.csv"), "label", image_size=8, group="person", cache_dir="none"
    )
    assert set(dataset.train.groups or ()) == {"p0+p1+p2", "p3"}
    side = sides(dataset)
    assert len({side[f"i/{n:02}.png"] for n in range(30)}) == 1
    assert (
        "3 groups of data.group share an image with another one and are split together, e.g. "
        in (caplog.text)
    )


def test_nothing_but_copies_is_split_all_the_same(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    path = images("a", 1)[0]
    (tmp_path / "b").mkdir()
    for index in range(10):
        shutil.copy(path, tmp_path / "ab"[index % 2] / f"c{index}.png")
    assert "val" in sides(load(tmp_path)).values()
    assert "split: the 1 distinct images are too few to keep copies on one side" in caplog.text


def test_near_duplicates_are_grouped_on_request(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    """The same pictures, saved again as small JPEGs, brighter."""
    caplog.set_level(logging.INFO)
    for path in [*images("a", 10), *images("b", 10)]:
        with Image.open(path) as image:
            brighter = image.resize((40, 40)).point(lambda value: value * 0.8 + 40)
            brighter.save(path.with_suffix(".jpg"), quality=60)
    assert load(tmp_path).train.copy_of is None
    dataset = load(tmp_path, near_duplicates=8)
    side = sides(dataset)
    assert all(side[name] == side[name.replace("jpg", "png")] for name in side)
    assert "20 of 40 images are similar (data.near_duplicates=8) to an earlier one" in caplog.text
    assert len(set(dataset.train.copy_of or ())) == 20  # and no others were joined


def test_near_duplicates_in_test_are_warned_of(
    tmp_path: Path, images: Callable[..., list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        images(folder, 4)
    with Image.open(tmp_path / "train" / "b" / "03.png") as image:
        image.save(tmp_path / "test" / "b" / "again.jpg", quality=80)
    dataset = load(tmp_path, near_duplicates=6)
    assert dataset.test is not None
    assert dataset.test.like_train is not None
    ((twin, index),) = dataset.test.like_train.tolist()
    assert dataset.train.ids[twin] == "train/b/03.png"
    assert dataset.test.ids[index] == "test/b/again.jpg"
    assert "1 of 9 test images are similar (data.near_duplicates=6) to one for training" in (
        caplog.text
    )


@pytest.mark.skipif(not CLOTHING.exists(), reason="the photographs of clothing are not here")
def test_a_real_photograph_under_two_labels_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In clothing-dataset-small, a photograph of shorts is saved once more as one of a skirt."""
    for name in ("shorts", "skirt"):
        (tmp_path / name).symlink_to(CLOTHING / "train" / name)
    dataset = load(tmp_path, near_duplicates=4)
    assert (
        "1 of 314 images are similar (data.near_duplicates=4) to one with another label, e.g. "
        "skirt/637a56e4-7fa6-4f75-8859-0f8902461554.jpg = "
        "shorts/6075b4a5-5b1a-4ce0-aea0-9dbfbca7c35c.jpg (skirt, shorts). Correct the labels"
    ) in caplog.text
    assert len(set(dataset.train.copy_of or ())) == 313
