"""The winner's curse, on predictions whose true quality is known."""

from pathlib import Path

import numpy as np
import pytest

from tests.answer.made import make_finished_run, split_of
from visionsweep.answer.selection import Candidate, Selection, corrected_winner
from visionsweep.answer.sentences import winner_sentence
from visionsweep.rundir.predictions import Predictions, read_predictions, write_predictions

NUM_CLASSES = 4


def trials_of(rng, num_images: int, skills: list[float], num_epochs: int = 1) -> list:
    """Return trials of one run, whose epochs are right on a share `skill` of all images."""
    targets = rng.integers(0, NUM_CLASSES, num_images)
    trials = []
    for skill in skills:
        is_right = rng.random((num_epochs, num_images)) < skill
        wrong = (targets + rng.integers(1, NUM_CLASSES, (num_epochs, num_images))) % NUM_CLASSES
        preds = np.where(is_right, targets, wrong)
        chosen = int((preds == targets).mean(axis=1).argmax())
        trials.append([[Candidate(targets, preds, np.arange(num_images), chosen)]])
    return trials


def correct(trials, num_images: int, metric: str = "accuracy", seed: int = 0):
    return Selection(trials, metric, "zero", NUM_CLASSES, num_images).correct(60, seed)


@pytest.mark.parametrize(("num_trials", "num_epochs"), [(20, 1), (1, 20), (5, 4)])
def test_the_best_of_equal_ones_is_no_better_than_they_are(
    num_trials: int, num_epochs: int
) -> None:
    """Whether trials or epochs are chosen from: all are right on 0.7 of all images."""
    rng = np.random.default_rng(3)
    raw, corrected = [], []
    for seed in range(60):
        trials = trials_of(rng, 200, [0.7] * num_trials, num_epochs)
        _, value, estimate, _ = correct(trials, 200, seed=seed)
        raw.append(value)
        corrected.append(estimate)
    assert np.mean(raw) > 0.745
    assert np.mean(corrected) == pytest.approx(0.7, abs=0.012)


def test_a_clear_winner_needs_no_correction() -> None:
    trials = trials_of(np.random.default_rng(0), 400, [0.5, 0.9, 0.5])
    winner, raw, corrected, error = correct(trials, 400)
    assert winner == 1
    assert corrected == pytest.approx(raw, abs=0.002)
    assert error == pytest.approx(np.sqrt(raw * (1 - raw) / 400), rel=0.3)


def test_the_bias_of_macro_f1_on_few_images_is_taken_out() -> None:
    """A single candidate, so nothing is chosen. Its expected F1 on 40 images is below the true."""
    rng = np.random.default_rng(1)
    (big,) = trials_of(rng, 200_000, [0.6])
    _, truth, _, _ = Selection([big], "f1_macro", "zero", NUM_CLASSES, 200_000).correct(1)
    raw, corrected = [], []
    for seed in range(300):
        _, value, estimate, _ = correct(trials_of(rng, 40, [0.6]), 40, "f1_macro", seed)
        raw.append(value)
        corrected.append(estimate)
    assert np.mean(raw) < truth - 0.008
    assert np.mean(corrected) == pytest.approx(truth, abs=0.006)


def write(folder: Path, rng, num_trials: int = 6, epochs: int | None = 3, **config) -> None:
    targets = rng.integers(0, NUM_CLASSES, 150)
    for number in range(num_trials):
        shape = (epochs or 1, 150)
        preds = np.where(rng.random(shape) < 0.7, targets, (targets + 1) % NUM_CLASSES)
        best = int((preds == targets).mean(axis=1).argmax())
        val = split_of(np.eye(NUM_CLASSES, dtype=np.float32)[preds[best]], targets)
        objective = {"metric": "val/accuracy", "direction": "maximize", "others": {}}
        run = make_finished_run(
            folder / str(number),
            val,
            config={"objective": objective} | config,
            result={"best_epoch": best + 1, "epochs": shape[0]},
        )
        if epochs is not None:
            found = read_predictions(run)
            kept = {**vars(found), "epoch_preds": preds.astype(np.int16)}
            write_predictions(run, Predictions(**kept))


def test_the_winner_of_a_sweep_is_corrected_from_its_files(tmp_path: Path) -> None:
    write(tmp_path, np.random.default_rng(2))
    found = corrected_winner(tmp_path)
    assert found is not None
    values = {}
    for run in tmp_path.iterdir():
        val = read_predictions(run).val
        values[run] = (val.logits.argmax(1) == val.targets).mean()
    assert found.trial == max(sorted(values), key=values.__getitem__)
    assert found.raw == max(values.values())
    assert found.corrected < found.raw
    assert (found.num_trials, found.num_images, found.includes_epochs) == (6, 150, True)
    low, high = found.interval
    assert low < found.corrected < high


def test_epochs_that_nobody_kept_are_told(tmp_path: Path) -> None:
    write(tmp_path / "many", np.random.default_rng(2), epochs=None)
    (tmp_path / "last").mkdir()
    write(tmp_path / "last", np.random.default_rng(2), trainer={"checkpoint": "last"})
    for run in (tmp_path / "many").iterdir():
        (run / "result.json").write_text('{"state": "finished", "best_epoch": 2, "epochs": 9}')
    many, last = corrected_winner(tmp_path / "many"), corrected_winner(tmp_path / "last")
    assert many is not None
    assert last is not None
    assert (many.includes_epochs, last.includes_epochs) == (False, True)


@pytest.mark.parametrize("metric", ["val/loss", "val/f1_class/cat"])
def test_there_is_none_for_a_metric_that_classes_do_not_tell(tmp_path: Path, metric: str) -> None:
    objective = {"metric": metric, "direction": "minimize", "others": {}}
    write(tmp_path, np.random.default_rng(2), objective=objective)
    assert corrected_winner(tmp_path) is None


def test_there_is_none_without_a_choice(tmp_path: Path) -> None:
    write(tmp_path, np.random.default_rng(2), num_trials=1)
    assert corrected_winner(tmp_path) is None
    assert corrected_winner(tmp_path / "nowhere") is None


def test_there_is_none_while_only_one_trial_has_all_its_folds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("0/fold_0", "0/fold_1", "1/fold_0"):
        val = split_of(rng.normal(size=(30, 3)).astype(np.float32), rng.integers(0, 3, 30))
        fold = int(place[-1])
        config = {"split": {"val_fraction": 0.2, "fold": fold, "num_folds": 2}}
        make_finished_run(tmp_path / place, val, config=config)
    assert corrected_winner(tmp_path) is None


def test_trials_with_fewer_seeds_are_told_and_not_chosen_from(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("0/seed_0", "0/seed_1", "1/seed_0", "1/seed_1", "2/seed_0"):
        val = split_of(rng.normal(size=(30, 3)).astype(np.float32), rng.integers(0, 3, 30))
        make_finished_run(tmp_path / place, val, config={"seed": int(place[-1])})
    winner = corrected_winner(tmp_path)
    assert winner is not None
    assert (winner.num_trials, winner.num_others) == (2, 1)
    sentence = winner_sentence(winner)
    assert "is the best of 2 trials with all seeds on the 30 images" in sentence
    assert "; the choice of these among 3 by fewer seeds is not in it" in sentence
