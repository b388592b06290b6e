"""The answer of a confirmation: its verdicts on made runs, and how often they are wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.answer.made import make_finished_run, split_of
from tests.sweep.records import sweep_settings
from visionsweep.answer.interval import estimate_mean
from visionsweep.answer.sequential import nominal_levels
from visionsweep.rundir.confirmation import read_confirmation
from visionsweep.sweep.confirm import MIN_ROUNDS, Candidates
from visionsweep.sweep.confirmation import Confirmation

SEEDS = 10
CANDIDATES = 3


def differences(
    rng: np.random.Generator, effect: float, num_images: int = 120
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return candidate minus baseline per seed (S,), and resampled over images (B, S).

    Images differ in what they gain, seeds in what they gain on all images.
    """
    image = 0.3 * rng.normal(size=(num_images, 1))
    seed = 0.02 * rng.normal(size=SEEDS)
    gains = effect + image + seed + 0.4 * rng.normal(size=(num_images, SEEDS))
    weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=200)
    return gains.mean(axis=0), weights @ gains / num_images


def verdicts(effect: float, levels: dict[int, float], seed: int) -> dict[int, str]:
    """Return the first verdict on each candidate of one confirmation: its round and direction."""
    rng = np.random.default_rng([7, seed])
    drawn = [differences(rng, effect) for _ in range(CANDIDATES)]
    found: dict[int, str] = {}
    for rounds, level in levels.items():
        for number, (values, resampled) in enumerate(drawn):
            low, high = estimate_mean(values[:rounds], resampled[:, :rounds]).interval(1 - level)
            if number not in found and (low > 0 or high < 0):
                found[number] = f"{rounds} {'better' if low > 0 else 'worse'}"
    return found


ROUNDS = range(MIN_ROUNDS, SEEDS + 1)
LEVELS = dict(
    zip(ROUNDS, nominal_levels([r / SEEDS for r in ROUNDS], 0.05 / CANDIDATES), strict=True)
)


@pytest.mark.slow
def test_a_verdict_of_any_look_on_any_candidate_is_wrong_in_at_most_five_percent() -> None:
    wrong = np.mean([bool(verdicts(0.0, LEVELS, seed)) for seed in range(400)])
    plain = dict.fromkeys(ROUNDS, 0.05)
    wrong_plain = np.mean([bool(verdicts(0.0, plain, seed)) for seed in range(400)])
    assert wrong <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert wrong_plain > 0.2  # the same looks, each at 95 %


def test_a_large_difference_is_found_early() -> None:
    found = [verdicts(0.2, LEVELS, seed) for seed in range(50)]
    assert all(len(one) == CANDIDATES for one in found)
    assert all(text.endswith("better") for one in found for text in one.values())
    first = [min(int(text.split()[0]) for text in one.values()) for one in found]
    assert np.mean(first) < 0.6 * SEEDS


NUM_IMAGES = 200


def make_confirmation(
    folder: Path, accuracies: list[float], seeds: int = 4, folds: int = 1
) -> Confirmation:
    """Write the runs of trials whose networks are right in these shares of the images."""
    settings = sweep_settings(seeds=seeds, folds=folds, fold_key="f", folds_key="n", n_trials=3)
    ids = [f"{i:04d}" for i in range(NUM_IMAGES)]
    targets = np.arange(NUM_IMAGES) % 2
    for number, accuracy in enumerate(accuracies):
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            right = rng.random(NUM_IMAGES) < accuracy
            logits = np.eye(2, dtype=np.float32)[np.where(right, targets, 1 - targets)]
            for fold in range(folds):
                part = slice(fold, None, folds)
                config: dict[str, Any] = {
                    "seed": 5 + seed,
                    "optim": {"_target_": "torch.optim.SGD", "lr": 0.1 * (number + 1)},
                    "split": {"fold": fold if folds > 1 else None, "num_folds": folds},
                }
                objective = {"metric": "val/f1_macro", "direction": "maximize", "value": 0.5}
                place = folder / f"{number}/seed_{seed}"
                make_finished_run(
                    place / f"fold_{fold}" if folds > 1 else place,
                    split_of(logits[part], targets[part], ids[part]),
                    config=config,
                    result={"objective": objective, "others": {}},
                )
    params = [{"optim.lr": 0.1 * (number + 1)} for number in range(len(accuracies))]
    trials = [None, *range(1, len(accuracies))]
    return Confirmation(folder, Candidates(str(folder / "study"), 20, trials, params), settings)


@pytest.mark.parametrize("folds", [1, 2])
def test_the_better_one_is_confirmed_and_the_sentences_say_so(tmp_path: Path, folds: int) -> None:
    confirmation = make_confirmation(tmp_path, [0.7, 0.7, 0.95], folds=folds)
    assert confirmation.look(2, [0, 1, 2]) == (None, False)
    line, is_clear = confirmation.look(4, [0, 1, 2])
    assert is_clear
    assert str(line).startswith("after 4 of 4 seeds: optim.lr=0.3 is +0.2")
    answer = confirmation.answer(4, [0, 1, 2])
    assert (answer.confirmed, answer.better) == (2, [2])
    best, other, selected = confirmation.lines(answer)
    assert best.startswith("optim.lr=0.3 beats the baseline (optim.lr=0.1) by ")
    assert "95 % for all 2 comparisons together" in best
    assert "4 pairs, 200 images" in best
    assert other.startswith("cannot tell optim.lr=0.2 from the baseline (optim.lr=0.1): ")
    assert selected == (
        f"selected: 2 configurations of 20 by the study {tmp_path / 'study'}; compared with the "
        "baseline on 4 new seeds that it did not use, the same for all"
    )


def test_a_worse_one_has_a_negative_difference(tmp_path: Path) -> None:
    answer = make_confirmation(tmp_path, [0.95, 0.6]).answer(4, [0, 1])
    assert answer.difference(1).estimate.value < -0.2
    assert answer.difference(1).interval[1] < 0
    assert (answer.is_clear, answer.confirmed) == (True, 0)


def test_equal_ones_are_not_told_apart(tmp_path: Path) -> None:
    confirmation = make_confirmation(tmp_path, [0.8, 0.8, 0.8])
    answer = confirmation.answer(4, [0, 1, 2])
    assert (answer.is_clear, answer.confirmed) == (False, None)
    assert "the test split was not used" in confirmation.last_lines(answer, [])[0]


def test_the_answer_is_written_for_the_study_too(tmp_path: Path) -> None:
    confirmation = make_confirmation(tmp_path, [0.7, 0.95])
    (tmp_path / "study").mkdir()
    answer = confirmation.answer(4, [0, 1])
    lines = [*confirmation.lines(answer), *confirmation.last_lines(answer, [0.9, 0.92])]
    assert lines[-1].startswith("test/f1_macro 0.9100 +- 0.014 (mean of 2 runs); the test split ")
    confirmation.write(answer, lines, [0.9, 0.92])
    record = read_confirmation(tmp_path / "study")
    assert record is not None
    assert record == read_confirmation(tmp_path)
    assert (record.confirmed, record.confirmed_trial) == ("optim.lr=0.2", 1)
    assert record.lines == lines
    assert (record.seeds, record.max_seeds, record.error) == (4, 4, 0.05)
    (tmp_path / "study/confirmation.json").write_text("{")
    assert read_confirmation(tmp_path / "study") is None
