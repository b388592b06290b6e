"""`visionsweep evaluate` of a trial's runs, made up: their scores are there already."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from tests.answer.made import make_finished_run, split_of
from visionsweep.run.evaluate import evaluate_trial

TARGETS = np.array([0, 0, 1, 1])


def make_seeds(trial_dir: Path, ids: list[list[str]], logits: list[list[float]]) -> None:
    """Write two runs whose logits of class 1 are given, of class 0 all 0."""
    for seed in range(2):
        values = np.stack([np.zeros(4), np.array(logits[seed])], axis=1).astype(np.float32)
        test = split_of(values, TARGETS, ids[seed])
        scores = {"test/accuracy": accuracy_score(TARGETS, values.argmax(axis=1))}
        make_finished_run(trial_dir / f"seed_{seed}", test, test=test, result={"test": scores})


def test_the_mean_prediction_is_that_of_the_same_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    # image d: 0.9 and 0.2 for class 1
    make_seeds(
        tmp_path / "7",
        [["a", "b", "c", "d"]] * 2,
        [[-1, 1, 1, np.log(9)], [-1, -3, 1, np.log(0.25)]],
    )
    evaluate_trial(tmp_path / "7")
    *singles, mean = caplog.messages
    assert [line.rpartition(" ")[2] for line in singles] == ["0.7500", "0.7500"]
    assert "7 (mean prediction of 2 runs): test/f1_macro 1.0000, test/accuracy 1.0000" in mean


def test_runs_that_were_evaluated_on_other_images_have_no_mean_prediction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_seeds(tmp_path / "7", [["a", "b", "c", "d"], ["a", "b", "c", "e"]], [[-1, -1, 1, 1]] * 2)
    evaluate_trial(tmp_path / "7")
    *singles, line = caplog.messages
    assert len(singles) == 2
    assert line.endswith("which have different test images, so their mean prediction has no score")
