"""Which `hydra.sweeper.keep_checkpoints` would have kept the weights that an ensemble needs."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from tests.answer.made import make_finished_run, split_of
from visionsweep.answer.keeping import missed_line
from visionsweep.answer.members import read_members
from visionsweep.sweep.folds import value_of_folds

# Two folds: one image of 7 is of the other class.
TARGETS = np.array([[0, 0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1, 1]])
RARE_WRONG = np.array([[0] * 7, [1] * 7])
TWO_WRONG = np.array([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]])
ALL_WRONG = 1 - TARGETS


def make_trial(trial_dir: Path, preds: NDArray[np.int64], seed: int | None = None) -> list[Path]:
    """Write the folds of a trial, or of one of its seeds, without weights; return them."""
    place = trial_dir if seed is None else trial_dir / f"seed_{seed}"
    return [
        make_finished_run(
            place / f"fold_{fold}",
            split_of(
                np.eye(2, dtype=np.float32)[preds[fold]],
                TARGETS[fold],
                [f"{fold}_{row}.png" for row in range(7)],
            ),
            config={"split": {"fold": fold, "num_folds": 2}, "seed": seed or 0},
            result={
                "objective": {
                    "metric": "val/f1_macro",
                    "direction": "maximize",
                    "value": f1_score(TARGETS[fold], preds[fold], average="macro"),
                },
                "others": {},
            },
        )
        for fold in range(2)
    ]


def kept_by(sweep: Path, *missed: str) -> int:
    """Return the `keep_checkpoints` that the line names for members in these places."""
    members = read_members([sweep]).members
    places = [str(member.runs[0].directory.parent.relative_to(sweep)) for member in members]
    line = missed_line(members, np.array([place in missed for place in places], dtype=float))
    assert line is not None
    return int(line.partition("keep_checkpoints=")[2].split()[0])


def test_trials_of_folds_are_ranked_by_the_pooled_metric_as_a_sweep_ranks_them(
    tmp_path: Path,
) -> None:
    one, other = make_trial(tmp_path / "0", TWO_WRONG), make_trial(tmp_path / "1", RARE_WRONG)
    make_trial(tmp_path / "2", ALL_WRONG)
    means, pooled = [], []
    for preds in (TWO_WRONG, RARE_WRONG):
        scores = [f1_score(TARGETS[fold], preds[fold], average="macro") for fold in range(2)]
        means.append(np.mean(scores))
        pooled.append(f1_score(TARGETS.ravel(), preds.ravel(), average="macro"))
    assert means[0] > means[1]
    assert pooled[0] < pooled[1]
    assert [value_of_folds(runs, [0, 0]).values for runs in (one, other)] == [
        pytest.approx([value]) for value in pooled
    ]
    assert kept_by(tmp_path, "1") == 1
    assert kept_by(tmp_path, "0") == 2
    assert kept_by(tmp_path, "0", "2") == 3


def test_the_seeds_of_a_trial_count_as_one(tmp_path: Path) -> None:
    for number, preds in enumerate(
        [(RARE_WRONG, ALL_WRONG), (TWO_WRONG, TWO_WRONG), (ALL_WRONG, ALL_WRONG)]
    ):
        for seed in range(2):
            make_trial(tmp_path / str(number), preds[seed], seed)
    assert kept_by(tmp_path, "1/seed_1") == 1
    assert kept_by(tmp_path, "0/seed_0") == 2  # the better seed of the trial that is worse
    assert kept_by(tmp_path, "1/seed_0", "2/seed_1") == 3
