"""Splits: disjoint, complete, even, reproducible; their manifest."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionsweep.data.dataset import ImageDataset, ImageSet, Preprocessing
from visionsweep.data.split_manifest import SplitRow, read_split, write_split
from visionsweep.data.splits import split_indices
from visionsweep.errors import ConfigError, DataError

FRACTION = {"val_fraction": 0.2, "fold": None, "num_folds": 5}


def imbalanced(num_groups: int, per_group: int) -> tuple[np.ndarray, list[str]]:
    """Return labels of 6 classes with a ratio of 49 to 1, and groups of images of one class."""
    shares = np.array([49, 30, 15, 8, 3, 1]) / 106
    counts = np.maximum((shares * num_groups).astype(int), 3)
    classes = np.repeat(np.arange(6), counts)
    np.random.default_rng(5).shuffle(classes)
    targets = np.repeat(classes, per_group)
    return targets, [f"person{index // per_group}" for index in range(len(targets))]


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    num_groups=st.one_of(st.none(), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
    val_fraction=st.floats(0.01, 0.99),
    fold=st.one_of(st.none(), st.integers(0, 3)),
)
@pytest.mark.filterwarnings("default")
def test_disjoint_complete_and_no_group_on_both_sides(
    labels: list[int], num_groups: int | None, seed: int, val_fraction: float, fold: int | None
) -> None:
    targets = np.array(labels)
    groups = None
    if num_groups is not None:
        groups = [
            str(group) for group in np.random.default_rng(seed).integers(0, num_groups, len(labels))
        ]
    try:
        train, val = split_indices(
            targets, groups, val_fraction=val_fraction, fold=fold, num_folds=4, seed=seed
        )
    except DataError:
        if groups is None:
            counts = np.bincount(targets)
            assert counts[counts > 1].sum() <= (fold or 0)
        return
    assert len(train) > 0
    assert len(val) > 0
    assert sorted([*train, *val]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    if groups is None:
        assert set(targets[val]) <= set(targets[train])
    else:
        assert not {groups[i] for i in train} & {groups[i] for i in val}


@pytest.mark.parametrize("val_fraction", [0.1, 0.2, 0.35, 0.5, 0.8])
def test_each_class_gives_its_share(val_fraction: float) -> None:
    targets, _ = imbalanced(2000, 1)
    _, val = split_indices(targets, None, val_fraction=val_fraction, fold=None, num_folds=5, seed=0)
    assert len(val) == round(len(targets) * val_fraction)
    np.testing.assert_allclose(
        np.bincount(targets[val]), np.bincount(targets) * val_fraction, atol=1
    )


def test_small_classes_are_on_both_sides() -> None:
    targets = np.array([0] * 50 + [1] * 2 + [2] * 3)
    for seed in range(20):
        for val_fraction in (0.05, 0.9):
            train, val = split_indices(
                targets, None, val_fraction=val_fraction, fold=None, num_folds=5, seed=seed
            )
            assert set(targets[train]) == set(targets[val]) == {0, 1, 2}


@pytest.mark.parametrize("per_group", [None, 7])
def test_folds_cover_everything_once_and_are_even(per_group: int | None) -> None:
    targets, persons = imbalanced(300, per_group or 1)
    groups = persons if per_group else None
    vals = [
        split_indices(targets, groups, val_fraction=0.2, fold=fold, num_folds=5, seed=3)[1]
        for fold in range(5)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(vals)), np.arange(len(targets)))
    counts = np.array([np.bincount(targets[val], minlength=6) for val in vals])
    # one unit (an image, or a person's seven) is as even as it can be
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= (per_group or 1)
    assert np.ptp(counts.sum(axis=1)) <= 2 * (per_group or 1)


@pytest.mark.slow
def test_grouped_fraction_is_at_least_as_even_as_scikit_learns() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(0)
    # groups of mixed size and class, which nothing can split exactly
    group_of = np.sort(rng.integers(0, 120, 1500))
    targets = (rng.integers(0, 3, 1500) + group_of) % 5
    groups = [str(group) for group in group_of]

    def unevenness(val: np.ndarray) -> float:
        return float(
            np.abs(np.bincount(targets[val], minlength=5) / np.bincount(targets) - 0.2).max()
        )

    ours = [
        unevenness(split_indices(targets, groups, **FRACTION, seed=seed)[1]) for seed in range(5)
    ]
    theirs = [
        unevenness(val)
        for seed in range(5)
        for _, val in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(
            targets, targets, groups
        )
    ]
    assert np.mean(ours) <= np.mean(theirs)
    assert max(ours) < 0.005


@pytest.mark.parametrize("val_fraction", [0.1, 0.3, 0.45])
def test_grouped_fraction_is_met(val_fraction: float) -> None:
    targets, groups = imbalanced(400, 7)
    _, val = split_indices(
        targets, groups, val_fraction=val_fraction, fold=None, num_folds=5, seed=1
    )
    assert abs(len(val) / len(targets) - val_fraction) < 0.01
    np.testing.assert_allclose(
        np.bincount(targets[val]), np.bincount(targets) * val_fraction, atol=7
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_the_seed_alone_decides(grouped: bool) -> None:
    targets, persons = imbalanced(100, 3)
    groups = persons if grouped else None
    first = split_indices(targets, groups, **FRACTION, seed=0)[1].tolist()
    np.random.seed(99)
    torch.manual_seed(99)
    assert split_indices(targets, groups, **FRACTION, seed=0)[1].tolist() == first
    assert split_indices(targets, groups, **FRACTION, seed=1)[1].tolist() != first


@pytest.mark.slow
def test_hashes_of_strings_do_not_matter() -> None:
    targets, groups = imbalanced(100, 3)
    here = split_indices(targets, groups, **FRACTION, seed=0)[1].tolist()
    arguments = f"np.array({targets.tolist()}), {groups}, **{FRACTION}, seed=0"
    script = (
        "import numpy as np; from visionsweep.data.splits import split_indices\n"
        f"print(split_indices({arguments})[1].tolist())"
    )
    command, environment = [sys.executable, "-c", script], {"PYTHONHASHSEED": "123"}
    assert subprocess.check_output(command, text=True, env=environment).strip() == str(here)


def test_rare_classes_of_few_groups_are_on_both_sides() -> None:
    targets = np.repeat([0] * 60 + [1] * 2 + [2] * 3, 4)
    groups = [str(index // 4) for index in range(len(targets))]
    for seed in range(10):
        for val_fraction in (0.05, 0.9):
            train, val = split_indices(
                targets, groups, val_fraction=val_fraction, fold=None, num_folds=5, seed=seed
            )
            assert set(targets[train]) == set(targets[val]) == {0, 1, 2}


def test_a_single_image_or_group_stays_in_training(caplog: pytest.LogCaptureFixture) -> None:
    targets = np.array([0] * 10 + [1] * 10 + [2])
    for fold in (None, 0, 4):
        caplog.clear()
        settings = {"val_fraction": 0.5, "fold": fold, "num_folds": 5, "seed": 0}
        train, _ = split_indices(targets, None, class_names=["a", "b", "rare"], **settings)
        assert 20 in train
        assert "1 of 3 classes have no image in validation: rare (1)" in caplog.text
    groups = [f"g{index}" for index in range(20)] + ["g0"]
    train, _ = split_indices(targets, groups, val_fraction=0.5, fold=None, num_folds=5, seed=0)
    assert {0, 20} <= set(train.tolist())


@pytest.mark.parametrize(
    ("targets", "groups", "numbers"),
    [
        ([0, 1, 2], None, r"of 3 images, 3 classes, leaves 3 for training and 0 for validation"),
        (
            [0, 0, 1, 1],
            ["a", "a", "b", "b"],
            r"of 4 images in 2 groups, 2 classes, leaves 4 for training and 0",
        ),
        ([0], None, r"of 1 images, 1 classes, leaves 1 for training and 0"),
    ],
)
def test_an_empty_side_is_refused_with_numbers(
    targets: list[int], groups: list[str] | None, numbers: str
) -> None:
    with pytest.raises(DataError, match=r"split\.val_fraction=0\.2 " + numbers):
        split_indices(np.array(targets), groups, **FRACTION, seed=0)
    with pytest.raises(DataError, match=r"split\.fold=4 of 5 "):
        split_indices(np.array(targets), groups, val_fraction=0.2, fold=4, num_folds=5, seed=0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"val_fraction": 0.0}, r"split\.val_fraction: expected a share between 0 and 1, got 0\.0"),
        ({"val_fraction": 1.0}, r"split\.val_fraction"),
        ({"val_fraction": float("nan")}, r"split\.val_fraction"),
        ({"fold": 5}, r"split\.fold: expected 0\.\.4 \(split\.num_folds=5\), got 5"),
        ({"fold": -1}, r"split\.fold"),
        ({"num_folds": 1}, r"split\.num_folds: expected at least 2, got 1"),
        ({"seed": -1}, r"seed: expected 0 or more, got -1"),
    ],
)
def test_wrong_settings_are_refused(setting: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        split_indices(np.array([0, 1] * 10), None, **({**FRACTION, "seed": 0} | setting))


def image_set(ids: list[str], targets: list[int], groups: list[str] | None) -> ImageSet:
    return ImageSet(
        torch.zeros(len(ids), 1, 8, 8, dtype=torch.uint8), torch.tensor(targets), ids, groups
    )


def test_manifest_round_trip(tmp_path: Path) -> None:
    dataset = ImageDataset(
        name="x",
        class_names=["cat", "dog, small"],
        train=image_set(["a.png", 'b"1",.png', "c\udcff.png"], [0, 1, 0], ["p", "q", "p"]),
        preprocessing=Preprocessing((8, 8), 1),
        test=image_set(["t.png"], [1], None),
    )
    path = tmp_path / "split.csv"
    write_split(path, dataset, np.array([0, 2]), np.array([1]))
    assert read_split(path) == [
        SplitRow("train", "a.png", "cat", "p"),
        SplitRow("train", "c\udcff.png", "cat", "p"),
        SplitRow("val", 'b"1",.png', "dog, small", "q"),
        SplitRow("test", "t.png", "dog, small", ""),
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.csv"]


def test_a_failed_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    dataset = ImageDataset(
        "x", ["a"], image_set(["0", "1"], [0, 0], None), Preprocessing((8, 8), 1)
    )
    path = tmp_path / "split.csv"
    write_split(path, dataset, np.array([0]), np.array([1]))
    before = path.read_bytes()
    with pytest.raises(IndexError):
        write_split(path, dataset, np.array([0]), np.array([7]))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.csv"]


def test_files_that_are_not_a_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*split\.csv"):
        read_split(tmp_path / "split.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=r"cannot read .*empty\.csv"):
        read_split(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("id,label\n1,2\n")
    with pytest.raises(DataError, match=r"other\.csv is not a split manifest"):
        read_split(tmp_path / "other.csv")


def test_the_data_s_own_split_is_used() -> None:
    targets = np.array([0, 1, 0, 1, 0, 1])
    train, val = split_indices(targets, None, **FRACTION, seed=1, own_folds=[-1, -1, 0, -1, -1, 0])
    assert (train.tolist(), val.tolist()) == ([0, 1, 3, 4], [2, 5])
    folds = [0, 1, 2, 2, 1, -1]
    train, val = split_indices(targets, None, **(FRACTION | {"fold": 2}), seed=1, own_folds=folds)
    assert (train.tolist(), val.tolist()) == ([0, 1, 4, 5], [2, 3])
    for fold in (None, 3):
        with pytest.raises(ConfigError, match=r"split\.fold: .* one of its folds \(0, 1, 2\)"):
            split_indices(targets, None, **(FRACTION | {"fold": fold}), seed=1, own_folds=folds)
    with pytest.raises(DataError, match="none is left for training"):
        split_indices(targets, None, **FRACTION, seed=1, own_folds=[0] * 6)
