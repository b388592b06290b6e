"""Which runs are one configuration, by the files of made-up runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.answer.made import make_finished_run, split_of
from visionsweep.answer.groups import make_arms
from visionsweep.answer.predictions import finished_runs
from visionsweep.errors import ConfigError, DataError

TARGETS = np.array([0, 1, 2, 0])
LOGITS = np.eye(3, dtype=np.float32)[TARGETS]
CROSS_ENTROPY = {"_target_": "torch.nn.CrossEntropyLoss", "smoothing": 0.0}
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.01}


def focal(gamma: float) -> dict[str, Any]:
    return {"_target_": "losses.FocalLoss", "gamma": gamma}


def make(folder: Path, *configs: dict[str, Any], val=None) -> Any:
    """Write runs and return them."""
    for number, config in enumerate(configs):
        config = {"optim": ADAMW, "loss": CROSS_ENTROPY} | config
        make_finished_run(folder / str(number), val or split_of(LOGITS, TARGETS), config=config)
    return finished_runs([folder])


def shape(arms) -> dict[str, list[tuple[Any, ...]]]:
    return {arm.name: sorted(arm.cells, key=str) for arm in arms.arms}


def test_seeds_are_replicates_and_everything_else_that_differs_is_the_configuration(
    tmp_path: Path,
) -> None:
    faster = ADAMW | {"lr": 0.1}
    runs = make(tmp_path, {"seed": 0}, {"seed": 1}, {"seed": 0, "optim": faster})
    found = make_arms(runs)
    assert shape(found) == {"optim.lr=0.01": [(0,), (1,)], "optim.lr=0.1": [(0,)]}
    assert (found.factors, found.others) == (("optim.lr",), ())


def test_what_a_choice_brings_with_it_is_no_setting_of_its_own(tmp_path: Path) -> None:
    found = make_arms(make(tmp_path, {}, {"loss": focal(2.0)}))
    assert found.factors == ("loss",)
    assert sorted(shape(found)) == ["CrossEntropyLoss", "FocalLoss"]


def test_runs_are_paired_over_the_settings_not_in_question(tmp_path: Path) -> None:
    configs = [
        {"loss": loss, "optim": ADAMW | {"lr": lr}, "seed": seed}
        for loss in (CROSS_ENTROPY, focal(1.0), focal(2.0))
        for lr in (0.01, 0.1)
        for seed in (0, 1)
    ]
    found = make_arms(make(tmp_path, *configs), ["loss"])
    keys = [(0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)]
    assert shape(found) == {"CrossEntropyLoss": keys, "FocalLoss": keys}
    assert set(found.others) == {"loss.gamma", "optim.lr"}
    # both gammas are averaged: cross entropy has none to be paired with
    assert [len(cell) for arm in found.arms for cell in arm.cells.values()] == [1] * 4 + [2] * 4


def test_settings_that_change_no_configuration_are_ignored(tmp_path: Path) -> None:
    configs = [
        {"name": "a", "study": "x", "trainer": {"threads": 1, "device": "cpu"}},
        {"name": "b", "study": "y", "trainer": {"threads": 2, "device": "cuda"}, "seed": 1},
    ]
    assert len(make_arms(make(tmp_path, *configs)).arms) == 1


def test_folds_are_pooled_to_one_replicate_per_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        for fold, rows in enumerate(([0, 3], [1, 2])):
            val = split_of(LOGITS[rows], TARGETS[rows], [f"i{row}" for row in rows])
            config = {"seed": seed, "split": {"fold": fold, "num_folds": 2}}
            make_finished_run(tmp_path / f"0/seed_{seed}" / f"fold_{fold}", val, config=config)
    runs = finished_runs(sorted(tmp_path.glob("0/*/*")))
    (arm,) = make_arms(runs).arms
    assert sorted(arm.cells) == [(0,), (1,)]
    for replicate in arm.replicates:
        assert replicate.ids.tolist() == ["i0", "i1", "i2", "i3"]
        assert replicate.preds.tolist() == TARGETS.tolist()


def test_a_run_that_repeats_another_counts_once_and_is_told(tmp_path: Path) -> None:
    found = make_arms(make(tmp_path, {}, {}, {}))
    assert len(found.arms[0].replicates) == 1
    assert found.notes == [
        "left out a run that repeats another with its seed and its validation set (2 times)"
    ]


@pytest.mark.parametrize(
    ("by", "line"),
    [
        ("optim", r"by: all 2 runs have optim=AdamW\. They differ in: loss"),
        ("los", r"by: the runs have no setting los; did you mean loss\?\. They differ in: loss"),
    ],
)
def test_a_question_that_the_runs_do_not_ask_is_refused(tmp_path: Path, by: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        make_arms(make(tmp_path, {}, {"loss": focal(2.0)}), [by])


def test_runs_on_different_data_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "a", {})
    make(tmp_path / "b", {"seed": 1}, val=split_of(LOGITS, TARGETS[::-1].copy()))
    make(tmp_path / "c", {"seed": 1}, val=split_of(np.eye(4, dtype=np.float32), np.arange(4)))
    make(tmp_path / "d", {}, val=split_of(LOGITS, TARGETS, ["w", "x", "y", "z"]))
    with pytest.raises(DataError, match=r"image images/00001\.png has another label in one"):
        make_arms(finished_runs([tmp_path / "a", tmp_path / "b"]))
    with pytest.raises(DataError, match=r"their classes differ \(3: class_0, .*; 4: class_0, "):
        make_arms(finished_runs([tmp_path / "a", tmp_path / "c"]))
    with pytest.raises(DataError, match=r"d/0 has the settings and the seed of .*a/0, but other"):
        make_arms(finished_runs([tmp_path / "a", tmp_path / "d"]))


def test_close_values_are_told_apart(tmp_path: Path) -> None:
    close = [{"optim": ADAMW | {"lr": lr}} for lr in (0.0036361, 0.0036362, 0.1)]
    found = make_arms(make(tmp_path, *close))
    names = ["optim.lr=0.00364 (1)", "optim.lr=0.00364 (2)", "optim.lr=0.1"]
    assert [arm.name for arm in found.arms] == names
