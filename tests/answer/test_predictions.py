"""Which runs count as finished, and the pooling of folds."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.answer.made import make_finished_run, split_of
from visionsweep.answer.predictions import FinishedRun, by_trial, finished_runs, pooled
from visionsweep.errors import DataError

TARGETS = np.array([0, 1, 2, 0])
LOGITS = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_runs_of_a_sweep_and_a_single_run_count_once(tmp_path: Path) -> None:
    for place in ("study/2/seed_0", "study/2/seed_1", "study/10", "single"):
        make_finished_run(tmp_path / place, split_of(LOGITS, TARGETS))
    for number, state in ((11, "pruned"), (12, "failed")):
        run = make_finished_run(tmp_path / f"study/{number}", split_of(LOGITS, TARGETS))
        (run / "result.json").write_text(json.dumps({"state": state}))
    running = make_finished_run(tmp_path / "study/13", split_of(LOGITS, TARGETS))
    (running / "result.json").unlink()
    runs = finished_runs([tmp_path / "study", tmp_path / "single", tmp_path / "study/10"])
    places = [str(run.directory.relative_to(tmp_path)) for run in runs]
    assert sorted(places) == ["single", "study/10", "study/2/seed_0", "study/2/seed_1"]
    trials = {str(k.relative_to(tmp_path)): len(v) for k, v in by_trial(runs).items()}
    assert trials == {"study/2": 2, "study/10": 1, "single": 1}


def test_seed_fold_and_predictions_of_a_run(tmp_path: Path) -> None:
    config = {"seed": 3, "split": {"fold": 1}}
    make_finished_run(tmp_path / "a", split_of(LOGITS, TARGETS), config=config)
    (run,) = finished_runs([tmp_path / "a"])
    assert (run.seed, run.fold) == (3, 1)
    np.testing.assert_array_equal(run.predictions().val.logits, LOGITS)


@pytest.mark.parametrize(
    "config", [{}, {"objective": None}, {"objective": {"direction": "maximize"}}]
)
def test_a_config_of_another_program_is_named(tmp_path: Path, config: dict[str, object]) -> None:
    run = FinishedRun(tmp_path / "a", config, {})
    with pytest.raises(DataError, match=r"a/config\.yaml has no objective\.metric"):
        assert run.metric


def test_folds_are_pooled_by_id() -> None:
    first = split_of(LOGITS[:2], TARGETS[:2], ["d", "b"], ["x", ""])
    second = split_of(LOGITS[2:], TARGETS[2:], ["a", "c"], ["y", "x"])
    both = pooled([first, second])
    assert both.ids.tolist() == ["a", "b", "c", "d"]
    assert both.targets.tolist() == [2, 1, 0, 0]
    np.testing.assert_array_equal(both.logits, LOGITS[[2, 1, 3, 0]])
    assert both.groups is not None
    assert both.groups.tolist() == ["y", "", "x", "x"]


def test_folds_that_overlap_are_refused() -> None:
    part = split_of(LOGITS, TARGETS)
    with pytest.raises(DataError, match=r"overlap: images/00000\.png was validated on more than"):
        pooled([part, part])


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("nowhere", "nowhere does not exist; expected the directory of a run or a sweep"),
        ("empty", "empty holds no run; expected the directory of a run"),
        ("failed", "failed: none of its 1 runs has finished with predictions"),
    ],
)
def test_a_directory_without_a_finished_run_is_named(tmp_path: Path, place: str, line: str) -> None:
    (tmp_path / "empty").mkdir()
    run = make_finished_run(tmp_path / "failed/a", split_of(LOGITS, TARGETS))
    (run / "predictions.npz").unlink()
    with pytest.raises(DataError, match=line):
        finished_runs([tmp_path / place])
