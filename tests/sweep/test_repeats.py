"""The race over seeds: its statistics against formulas, its decisions, and what it costs."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from tests.sweep.records import RANDOM, record, sweep_settings
from tests.sweep.test_controller import ASHA, Script, Setup, continuous, discrete, seed_of
from visionsweep.sweep.engines.engine import Job
from visionsweep.sweep.ranking import best, ranked
from visionsweep.sweep.repeats import (
    ENTRANTS,
    entrants,
    fit,
    next_trial,
    noise_of,
    race_lines,
    seeds_rule,
)
from visionsweep.sweep.retention import remove_checkpoints
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.storage import open_storage
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.tally import Tally


def table(
    num_trials: int, num_seeds: int, seed: int, *, noise: float = 0.02, shared: float = 0.03
) -> NDArray[np.float64]:
    """Return (num_trials, num_seeds) values: of the trial, of the seed, and noise."""
    rng = np.random.default_rng(seed)
    means = 0.83 - rng.exponential(0.03, (num_trials, 1))
    by_seed = rng.normal(0, shared, num_seeds)
    return np.asarray(means + by_seed + rng.normal(0, noise, (num_trials, num_seeds)))


def values_of(rows: NDArray[np.float64], counts: list[int]) -> dict[int, list[float]]:
    """Return the first `counts` seeds of each trial."""
    return {n: rows[n, :count].tolist() for n, count in enumerate(counts)}


def test_a_whole_table_gives_the_formulas_of_a_two_way_analysis() -> None:
    rows = table(4, 5, seed=0)
    found = fit(values_of(rows, [5] * 4))
    effects = rows - rows.mean(axis=1, keepdims=True) - rows.mean(axis=0) + rows.mean()
    assert found.degrees == 12
    assert found.variance == pytest.approx((effects**2).sum() / 12)
    means = rows.mean(axis=1)
    assert found.estimates - found.estimates[0] == pytest.approx(means - means[0])
    covariance = found.covariance
    assert covariance[1, 1] + covariance[2, 2] - 2 * covariance[1, 2] == pytest.approx(2 / 5)
    noise = noise_of(values_of(rows, [5] * 4))
    assert noise is not None
    assert noise.own == pytest.approx(found.variance**0.5)
    assert noise.total == pytest.approx(rows.var(axis=1, ddof=1).mean() ** 0.5)


def test_a_ragged_table_is_fitted_as_numpy_does_it() -> None:
    counts = [5, 3, 1, 2, 1]
    values = values_of(table(5, 5, seed=1), counts)
    cells = [(i, j) for i, count in enumerate(counts) for j in range(count)]
    design = np.zeros((len(cells), 9))
    for row, (i, j) in enumerate(cells):
        design[row, i] = 1
        if j:
            design[row, 4 + j] = 1
    targets = np.array([values[i][j] for i, j in cells])
    solved, residual, rank, _ = np.linalg.lstsq(design, targets)
    found = fit(values)
    assert found.estimates == pytest.approx(solved[:5])
    assert found.degrees == len(cells) - rank
    assert found.variance == pytest.approx(residual[0] / found.degrees)
    assert found.covariance == pytest.approx(np.linalg.inv(design.T @ design)[:5, :5])


def test_what_a_seed_does_to_all_trials_is_no_noise() -> None:
    rows = table(6, 5, seed=2, noise=0.01, shared=0.1)
    noise = noise_of(values_of(rows, [5, 4, 3, 2, 2, 1]))
    assert noise is not None
    assert 0.004 < noise.own < 0.02
    assert noise.total > 0.05
    assert str(noise).startswith("noise between seeds: 0.0")
    assert "(of 5 trials with several; " in str(noise)
    assert noise_of({0: [0.5, 0.6], 1: [0.4]}) is None  # a single trial tells them not apart


def test_the_best_four_get_a_second_seed_first() -> None:
    rows = table(10, 5, seed=3)
    counts = [1] * 10
    order = np.argsort(-rows[:, 0]).tolist()
    for expected in order[:4]:
        assert next_trial(values_of(rows, counts), 5, "maximize") == expected
        counts[expected] = 2


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_is_out_if_it_is_too_far_behind_for_its_noise(direction: str) -> None:
    sign = 1 if direction == "maximize" else -1
    rng = np.random.default_rng(4)
    rows = 0.8 + rng.normal(0, 0.01, (5, 3))
    rows[4] = 0.5
    values = {n: (sign * row[: 2 if n < 4 else 1]).tolist() for n, row in enumerate(rows)}
    found = fit(values)
    leader = int(np.argmax(sign * found.estimates))
    spread = found.covariance[leader, leader] + found.covariance[4, 4]
    bound = stats.t.ppf(0.95, found.degrees) * np.sqrt(found.variance * spread)
    gap = float(sign * (found.estimates[leader] - found.estimates[4]))
    for factor, is_in in ((0.99, True), (1.01, False)):
        values[4] = [values[4][0] + sign * (gap - factor * float(bound))]
        gap = factor * float(bound)
        running = [number for number in values if number != 4]
        assert (next_trial(values, 3, direction, running) == 4) == is_in


def test_no_more_than_the_entrants_run_and_each_as_often_as_the_others() -> None:
    rows = np.full((30, 1), 0.8) + np.random.default_rng(5).normal(0, 0.02, (30, 6))
    counts = [1] * 30
    while (number := next_trial(values_of(rows, counts), 6, "maximize")) is not None:
        counts[number] += 1
        several = [count for count in counts if count > 1]
        assert len(several) <= ENTRANTS
    assert set(entrants(values_of(rows, counts), "maximize")) >= {
        n for n, count in enumerate(counts) if count > 1
    }
    assert max(counts) == 6


def test_the_leader_has_all_its_seeds_when_the_race_is_over() -> None:
    for seed in range(30):
        rows = table(12, 5, seed)
        counts = [1] * 12
        while (number := next_trial(values_of(rows, counts), 5, "maximize")) is not None:
            counts[number] += 1
        found = fit(values_of(rows, counts))
        assert counts[int(np.argmax(found.estimates))] == 5
        complete = [n for n in range(12) if counts[n] == 5]
        assert max(complete, key=lambda n: rows[n].mean()) == int(np.argmax(found.estimates))


def test_few_trials_and_equal_values() -> None:
    assert next_trial({}, 5, "maximize") is None
    assert next_trial({3: [0.5]}, 5, "maximize") == 3
    assert next_trial({3: [0.5] * 5}, 5, "maximize") is None
    assert next_trial({0: [1.0, 1.0], 1: [1.0, 1.0]}, 5, "maximize", running=[0, 1]) is None
    with np.errstate(all="raise"):
        huge = {n: [1e300 * n, -1e300, 1e308] for n in range(4)}
        assert next_trial(huge, 5, "minimize") in huge


# -- a sweep


def script_of(rows: NDArray[np.float64]) -> Any:
    def script(job: Job) -> Script:
        yield ("report", 1, float(rows[job.number, 0]))
        yield ("end", "completed", float(rows[job.number, seed_of(job)]))

    return script


def keys_of(sweep: Setup) -> list[str]:
    return [job.key for job in sweep.engine.submitted]


@pytest.mark.parametrize("num_slots", [1, 3])
def test_only_contenders_get_more_than_one_seed(tmp_path: Path, num_slots: int) -> None:
    rows = table(14, 5, seed=6)
    rows[11] = [0.95, 0.6, 0.6, 0.6, 0.6]  # a lucky seed
    sweep = Setup(tmp_path, script_of(rows), seeds=5, n_trials=14, num_slots=num_slots)
    assert sweep.run().code == 0
    keys = keys_of(sweep)
    firsts = [i for i, key in enumerate(keys) if key.endswith("seed_0")]
    assert num_slots > 1 or firsts == list(range(14))  # the search comes first
    assert len(keys) < 14 + ENTRANTS * 4
    assert {trial.state.name for trial in sweep.stored()} == {"COMPLETE"}
    for trial, found in zip(sweep.stored(), sweep.records, strict=True):
        own = rows[trial.number, : len(found.seed_values)]
        assert found.seed_values == pytest.approx(own)
        assert trial.values == [pytest.approx(own.mean())]
        assert trial.intermediate_values == {1: rows[trial.number, 0]}
        assert found.has_all_seeds == (len(found.seed_values) == 5)
    winner = best(sweep.records, ["maximize"])
    assert winner is not None
    assert winner.has_all_seeds
    assert winner.number != 11
    assert (
        sweep.display.notes.count(
            "no trial is left to begin: those that may be the best get more seeds, one by one, "
            "at most 5"
        )
        == 1
    )


def test_a_race_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    rows = table(10, 4, seed=7)
    whole = Setup(tmp_path, script_of(rows), seeds=4, n_trials=10, num_slots=1)
    assert whole.run().code == 0
    for limit in range(10, len(keys_of(whole)), 2):
        killed = Setup(tmp_path, script_of(rows), seeds=4, n_trials=10, num_slots=1)
        kills = 0
        while True:
            killed.script = dying(script_of(rows), limit if kills < 5 else 10**9)
            try:
                killed.run()
                break
            except Death:
                kills += 1
        assert kills > 0
        assert [(t.state, t.params, t.values) for t in killed.stored()] == [
            (t.state, t.params, t.values) for t in whole.stored()
        ]
        assert [r.seed_values for r in killed.records] == [r.seed_values for r in whole.records]


class Death(Exception):  # noqa: N818 - what happens to the process
    """Stands for the death of the process."""


def dying(script: Any, limit: int) -> Any:
    """Die in the job after `limit` jobs, or in the second one of a process that began later."""
    started = []

    def run(job: Job) -> Script:
        started.append(job.key)
        if len(started) > min(limit, 10) and seed_of(job):
            raise Death
        if len(started) > limit:
            raise Death
        yield from script(job)

    return run


def test_an_interrupted_race_keeps_the_values_that_it_has(tmp_path: Path) -> None:
    rows = table(6, 5, seed=8)
    sweep = Setup(tmp_path, n_trials=6, seeds=5, num_slots=1)
    interrupts: list[int] = []

    def script(job: Job) -> Script:
        if len(sweep.engine.submitted) == 9 and not interrupts:
            interrupts.append(1)
            sweep.requests.append(2)
        yield ("report", 1, 0.5)
        yield ("end", "completed", float(rows[job.number, seed_of(job)]))

    sweep.script = script
    assert sweep.run().code == 130
    assert {found.state for found in sweep.records} == {"complete"}
    assert all(found.values for found in sweep.records)
    sweep.requests.clear()
    stopped = keys_of(sweep)[-1]
    (tmp_path / stopped).mkdir(parents=True)  # it left a checkpoint
    assert sweep.run().code == 0
    attempts = {job.key: job.attempt for job in sweep.engine.submitted}
    assert attempts.pop(stopped) == 1
    assert set(attempts.values()) == {0}
    winner = best(sweep.records, ["maximize"])
    assert winner is not None
    assert winner.has_all_seeds


def test_a_contender_that_fails_with_another_seed_has_failed(tmp_path: Path) -> None:
    rows = table(6, 3, seed=9)
    first = int(np.argmax(rows[:, 0]))
    rows[first, 1] = np.nan
    sweep = Setup(tmp_path, script_of(rows), seeds=3, n_trials=6, num_slots=1)
    assert sweep.run().code == 0
    assert sweep.stored()[first].state.name == "FAIL"
    winner = best(sweep.records, ["maximize"])
    assert winner is not None
    assert winner.number != first
    assert winner.has_all_seeds


def test_a_target_that_one_seed_reached_is_confirmed_before_the_sweep_ends(tmp_path: Path) -> None:
    rows = np.full((8, 3), 0.5) + np.random.default_rng(0).normal(0, 0.001, (8, 3))
    rows[2] = [0.9, 0.4, 0.4]  # luck
    rows[5] = [0.95, 0.94, 0.95]
    sweep = Setup(tmp_path, script_of(rows), seeds=3, n_trials=8, num_slots=1, target_value=0.85)
    end = sweep.run()
    assert end.code == 0
    assert end.reason == "hydra.sweeper.target_value=0.85 is reached"
    winner = best(sweep.records, ["maximize"])
    assert winner is not None
    assert (winner.number, winner.has_all_seeds) == (5, True)
    assert next(i for i, key in enumerate(keys_of(sweep)) if key == "2/seed_1") < next(
        i for i, key in enumerate(keys_of(sweep)) if key == "3/seed_0"
    )


def test_a_copy_has_the_value_of_all_seeds_of_its_original(tmp_path: Path) -> None:
    rows = table(12, 3, seed=10)
    sweep = Setup(tmp_path, script_of(rows), seeds=3, n_trials=12, num_slots=1, suggest=discrete)
    sweep.run()
    copies = [found for found in sweep.records if found.duplicate_of is not None]
    assert copies
    for found in copies:
        original = sweep.records[found.duplicate_of or 0]
        assert found.values == original.values
        assert found.has_all_seeds == original.has_all_seeds
    written = sweep.written[-1]
    assert [found.values for found in written] == [found.values for found in sweep.records]


def test_with_folds_a_seed_is_all_of_its_folds(tmp_path: Path) -> None:
    rows = table(6, 3, seed=11)

    def script(job: Job) -> Script:
        seed, fold = (int(part.rpartition("_")[2]) for part in job.key.split("/")[1:])
        yield ("report", 1, 0.5)
        yield ("end", "completed", float(rows[job.number, seed]) + (-0.01, 0.01)[fold])

    folds = {"folds": 2, "fold_key": "fold", "folds_key": "folds"}
    sweep = Setup(tmp_path, script, seeds=3, n_trials=6, num_slots=1, **folds)
    assert sweep.run().code == 0
    keys = keys_of(sweep)
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        assert (first[-1], second[-1], first[:-1]) == ("0", "1", second[:-1])
    assert len(keys) < 6 * 3 * 2
    for found in sweep.records:
        own = rows[found.number, : len(found.seed_values)]
        assert found.values == (pytest.approx(own.mean()),)


def test_the_sampler_sees_values_as_with_the_first_seed(tmp_path: Path) -> None:
    """The second seed makes all values smaller: no reason to think less of the contenders."""
    rows = table(10, 3, seed=12, shared=0)
    rows[:, 1:] -= 0.5
    sweep = Setup(tmp_path, script_of(rows), seeds=3, n_trials=10, num_slots=1)
    sweep.run()
    assert min(found.values[0] for found in sweep.records if found.values) < 0.6
    seen: list[float] = []

    class Looking(RandomSampler):
        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Any:
            seen.extend(t.value or 0.0 for t in study.get_trials(states=(TrialState.COMPLETE,)))
            return super().infer_relative_search_space(study, trial)

    sweep.study._make_sampler = lambda number: Looking(seed=0)
    assert sweep.study.ask() == 10
    assert seen == pytest.approx(rows[:, 0], abs=0.1)


def test_a_trial_that_begins_another_seed_keeps_its_reports(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = SweepStudy(
        open_storage(url),
        "s",
        ["maximize"],
        owner="a",
        make_sampler=sampler_factory(RANDOM, 0),
        pruner=build_pruner(ASHA),
        suggest=continuous,
        race_seeds=3,
    )
    number = study.ask()
    study.report(number, 1, 0.5, may_prune=True)
    before = dict(study.trial(number).system_attrs)
    assert any(key.startswith("completed_rung_") for key in before)
    study.notes(number).seed_values.append(0.5)
    study.complete(number, [0.5])
    study.begin_seed(number)
    for trial in (study.trial(number), optuna.load_study(study_name="s", storage=url).trials[0]):
        assert (trial.state, trial.values) == (TrialState.RUNNING, None)
        assert trial.intermediate_values == {1: 0.5}
        assert trial.system_attrs == before
    study.notes(number).seed_values.append(0.7)
    study.complete(number, [0.6])
    assert optuna.load_study(study_name="s", storage=url).trials[0].values == [0.6]


# -- what is shown and kept


def test_a_trial_that_ends_again_counts_once() -> None:
    tally = Tally(["maximize"])
    assert tally.add(record(0, 0.9, has_all_seeds=False))
    assert not tally.add(record(1, 0.8, has_all_seeds=False))
    assert not tally.add(record(0, 0.7, has_all_seeds=False))
    assert tally.best == record(1, 0.8, has_all_seeds=False)
    assert tally.counts == {"complete": 2}
    tally.add(record(0, state="failed"))
    assert +tally.counts == {"complete": 1, "failed": 1}


def test_trials_with_all_seeds_come_first() -> None:
    trials = [
        record(0, 0.9, seed_values=(0.9,), has_all_seeds=False),
        record(1, 0.8, seed_values=(0.8, 0.8)),
        record(2, 0.7, seed_values=(0.7, 0.7)),
    ]
    assert [trial.number for trial in ranked(trials, ["maximize"])] == [1, 2, 0]
    found = best(trials, ["maximize"])
    assert found is not None
    assert found.number == 1
    assert trials[0].values_text() == "0.9000 (1 seed)"


def test_the_weights_of_contenders_stay(tmp_path: Path) -> None:
    trials = [record(number, 0.9 - number / 10) for number in range(4)]
    for number in range(4):
        folder = tmp_path / str(number) / "seed_0/checkpoints"
        folder.mkdir(parents=True)
        (folder / "best.pt").write_bytes(b"weights")
    cleaned: set[str] = set()
    assert remove_checkpoints(tmp_path, trials, ["maximize"], 1, also=[2, 3], cleaned=cleaned) == [
        1
    ]
    assert remove_checkpoints(tmp_path, trials, ["maximize"], 1, cleaned=cleaned) == [2, 3]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"seeds": 3, "confirm": "multirun/faces"}, None),
        (
            {"seeds": 3},
            "seeds: one per trial, then up to 3 for those that may be the best "
            "(hydra.sweeper.seeds_for=contenders)",
        ),
        (
            {"seeds": 3, "seeds_for": "all"},
            "seeds: 3 for every trial (hydra.sweeper.seeds_for=all)",
        ),
        (
            {"seeds": 3, "pruner": {"_target_": "optuna.pruners.WilcoxonPruner"}},
            "seeds: 3 for every trial (hydra.sweeper.seeds_for=all: wilcoxon compares trials seed "
            "by seed)",
        ),
    ],
)
def test_the_rule_is_stated(keys: dict[str, Any], expected: str | None) -> None:
    assert seeds_rule(sweep_settings(**keys)) == expected


def test_the_summary_tells_noise_and_cost() -> None:
    rows = table(4, 3, seed=13)
    lines = race_lines(values_of(rows, [3, 2, 2, 1]), sweep_settings(seeds=3))
    assert lines[0].startswith("noise between seeds: ")
    assert lines[1] == "more than one seed: 3 of 4 trials, 4 of 8 further seeds"
