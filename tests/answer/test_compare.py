"""Comparisons of made-up runs: values, pairing, verdicts and their sentences."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.answer.made import make_finished_run, split_of
from visionsweep.answer.compare import Comparison, Difference, compare
from visionsweep.answer.interval import Estimate
from visionsweep.answer.predictions import finished_runs
from visionsweep.answer.sentences import Scale, sentences, table
from visionsweep.errors import ConfigError

NUM_CLASSES = 4


def make_runs(
    folder: Path,
    skills,
    seeds=(0, 1, 2),
    num_images=400,
    ids=None,
    groups=None,
    spread=0.0,
    prefix="run-",
) -> None:
    """Write one run per learning rate and seed; `skills` maps the rate to a share of hits.

    An image is as hard for one run as for another, so that runs are correlated.
    """
    rng = np.random.default_rng(5)
    targets = rng.integers(0, NUM_CLASSES, num_images)
    hardness = rng.random(num_images)
    for lr, skill in skills.items():
        for seed in seeds:
            noise = np.random.default_rng([seed, int(lr * 1000)])
            share = skill + noise.normal(0, spread)
            is_right = 0.7 * hardness + 0.3 * noise.random(num_images) < share
            preds = np.where(is_right, targets, (targets + 1) % NUM_CLASSES)
            val = split_of(np.eye(NUM_CLASSES, dtype=np.float32)[preds], targets, ids, groups)
            optim = {"_target_": "torch.optim.AdamW", "lr": lr}
            place = folder / f"{prefix}{len(list(folder.glob('*'))) if folder.exists() else 0}"
            config = {"optim": optim, "seed": seed}
            metrics = {"val/loss": 1 - share + 0.001 * seed}
            make_finished_run(place, val, config=config, result={"metrics": metrics})


def ask(folder: Path, **arguments) -> Comparison:
    return compare(finished_runs([folder]), **arguments)


def test_a_clear_difference_is_told_in_one_sentence(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.6, 0.2: 0.8})
    found = ask(tmp_path, metric="accuracy")
    (difference,) = found.differences
    assert (difference.first, difference.verdict) == ("optim.lr=0.2", "different")
    shares = {}
    for run in finished_runs([tmp_path]):
        val = run.predictions().val
        hits = (val.logits.argmax(1) == val.targets).mean()
        shares.setdefault(run.config["optim"]["lr"], []).append(hits)
    assert difference.estimate.value == pytest.approx(np.mean(shares[0.2]) - np.mean(shares[0.1]))
    (sentence,) = sentences(found)
    assert sentence.startswith("optim.lr=0.2 beats optim.lr=0.1 by ")
    assert "points of val/accuracy (95 %: " in sentence
    assert "3 pairs, 400 images)" in sentence


def test_the_interval_over_images_is_that_of_paired_proportions(tmp_path: Path) -> None:
    """One seed: the variance of (b - c) / n of the images where one run alone is right."""
    make_runs(tmp_path, {0.1: 0.6, 0.2: 0.65}, seeds=(0,), num_images=1000)
    first, second = (
        run.predictions().val.logits.argmax(1) == run.predictions().val.targets
        for run in finished_runs([tmp_path])
    )
    gains = second.astype(int) - first.astype(int)
    (difference,) = ask(tmp_path, metric="accuracy", resamples=4000).differences
    expected = 1.96 * gains.std() / np.sqrt(1000)
    assert difference.estimate.half_width() == pytest.approx(expected, rel=0.05)
    assert not difference.covers_seeds
    assert "one seed" in sentences(ask(tmp_path, metric="accuracy"))[0]


def test_it_says_when_it_cannot_tell_and_what_would_help(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.70, 0.2: 0.701}, spread=0.02)
    found = ask(tmp_path)
    assert found.differences[0].verdict == "unclear"
    (sentence,) = sentences(found)
    assert sentence.startswith("cannot tell optim.lr=0.")
    half = 100 * found.differences[0].estimate.half_width()
    assert f"a difference under {half:.1f} points is invisible with these 400 images" in sentence
    assert "and 3 seeds; " in sentence
    assert " more seeds would show " in sentence


def test_the_interval_of_two_runs_ends_where_shares_end(tmp_path: Path) -> None:
    """Student's t with one degree of freedom knows nothing of it."""
    make_runs(tmp_path, {0.1: 0.5, 0.2: 0.7}, seeds=(0, 1), spread=0.3)
    found = ask(tmp_path)
    assert found.differences[0].estimate.half_width() > 1
    (sentence,) = sentences(found)
    assert "-100.0 to 100.0" in sentence
    assert "no difference is visible with these 400 images and 2 seeds; " in sentence


def test_single_runs_in_other_settings_tell_nothing_and_one_note_says_so(tmp_path: Path) -> None:
    """As the trials of a sweep, compared by one of the parameters."""
    make_runs(tmp_path / "a", {0.1: 0.6, 0.2: 0.7, 0.3: 0.8}, seeds=(0,))
    for number, run_dir in enumerate(sorted((tmp_path / "a").iterdir())):
        path = run_dir / "config.yaml"
        path.write_text(path.read_text() + f"other: {number}\n")
    found = ask(tmp_path / "a", by=["optim.lr"])
    assert all(d.num_pairs is None for d in found.differences)
    assert sum("are not paired (like those of 2 other pairs)" in note for note in found.notes) == 1


def test_a_bound_near_zero_has_a_digit_more() -> None:
    assert Scale("val/f1_macro").difference(0.0004, "+") == "+0.04"
    assert Scale("val/f1_macro").difference(-0.012) == "-1.2"


def test_a_difference_too_small_to_matter_is_no_difference(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.7, 0.2: 0.7}, num_images=4000)
    found = ask(tmp_path, smallest=0.1)
    assert found.differences[0].verdict == "equivalent"
    assert "differ by less than the 10.0 points that matter" in sentences(found)[0]


def test_intervals_of_several_comparisons_hold_together(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.6, 0.2: 0.65, 0.3: 0.8})
    found = ask(tmp_path)
    assert found.num_comparisons == len(found.differences) == 3
    difference = found.differences[0]
    assert difference.interval == difference.estimate.interval(1 - 0.05 / 3)
    assert "95 % for all 3 comparisons together" in sentences(found)[0]


def test_of_many_configurations_the_best_is_compared_with_each_other(tmp_path: Path) -> None:
    make_runs(tmp_path, {n / 100: 0.5 + n / 40 for n in range(1, 13)}, (0,), 200)
    found = ask(tmp_path)
    assert found.num_comparisons == 66
    assert len(found.differences) == 11
    (sentence,) = sentences(found)
    assert sentence.startswith("this run of optim.lr=0.12 beats ")
    assert " of the 11 others (95 % for all comparisons together) and cannot be told" in sentence
    assert len(table(found)) == 1 + 12 + 1 + 1 + 11


def test_runs_with_different_validation_images_are_not_paired_and_it_says_so(
    tmp_path: Path,
) -> None:
    make_runs(tmp_path / "a", {0.1: 0.6}, ids=[f"a{n}" for n in range(400)])
    make_runs(tmp_path / "b", {0.2: 0.8}, ids=[f"b{n}" for n in range(400)])
    found = compare(finished_runs([tmp_path / "a", tmp_path / "b"]))
    assert found.differences[0].num_pairs is None
    assert found.notes[0] == (
        "the validation images of optim.lr=0.2 and optim.lr=0.1 differ (0 of 800 are in both), so "
        "their runs are not paired"
    )


def test_groups_of_images_count_as_one(tmp_path: Path) -> None:
    groups = [f"g{n // 40}" for n in range(400)]
    make_runs(tmp_path / "alone", {0.1: 0.6}, seeds=(0,))
    make_runs(tmp_path / "grouped", {0.1: 0.6}, seeds=(0,), groups=groups)
    alone, grouped = ask(tmp_path / "alone"), ask(tmp_path / "grouped")
    assert (alone.are_groups, grouped.are_groups) == (False, True)
    assert alone.arms[0].mean.value == grouped.arms[0].mean.value
    assert alone.arms[0].mean.half_width() != grouped.arms[0].mean.half_width()


def test_a_metric_of_the_result_is_compared_over_seeds_alone(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.6, 0.2: 0.8}, spread=0.02)
    values = {}
    for run in finished_runs([tmp_path]):
        values.setdefault(run.config["optim"]["lr"], []).append(run.result["metrics"]["val/loss"])
    found = ask(tmp_path, metric="val/loss")
    assert found.differences[0].first == "optim.lr=0.2"  # the lower loss
    expected = stats.ttest_rel(values[0.1], values[0.2]).confidence_interval()
    assert found.differences[0].interval == pytest.approx(tuple(expected), abs=1e-9)


def test_one_configuration_has_a_value_and_an_interval(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.6})
    assert sentences(ask(tmp_path))[0].startswith("one configuration, nothing to compare: val/f1_")


def test_an_unknown_metric_is_named(tmp_path: Path) -> None:
    make_runs(tmp_path, {0.1: 0.6})
    with pytest.raises(
        ConfigError, match=r"metric: no such metric: f1_mac; did you mean f1_macro\?"
    ):
        ask(tmp_path, metric="f1_mac")


def test_seeds_that_agree_by_chance_are_not_enough() -> None:
    """The interval, from the seeds, excludes 0; that of the images alone does not."""
    estimate = Estimate(0.006, 0.0, 1e-9, 2, 1, of_images_alone=0.005**2)
    difference = Difference("a", "b", estimate, 0.95, 2, 900, 0.0)
    assert difference.interval[0] > 0
    assert difference.verdict == "unclear"
    found = Comparison("val/f1_macro", ("loss",), (), [], [difference], 1, [], False)
    assert sentences(found) == [
        "cannot tell a from b: +0.6; the 2 seeds agree (95 %: 0.6 to 0.6), but on 900 images a "
        "difference under 1.0 points is invisible however many seeds agree"
    ]
