"""The study: what is stored when, and that a resumed study equals an uninterrupted one."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from visionsweep.errors import UserError
from visionsweep.sweep.samplers import sampler_factory
from visionsweep.sweep.storage import open_storage
from visionsweep.sweep.study import SweepStudy, past_trials

SPACE = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "loss": CategoricalDistribution(["focal", "f1", "ce"]),
    "k": IntDistribution(1, 4),
}
TPE = {
    "_target_": "optuna.samplers.TPESampler",
    "seed": 0,
    "multivariate": True,
    "group": True,
    "constant_liar": True,
    "n_startup_trials": 4,
}


def suggest(trial: Trial) -> None:
    for key, distribution in SPACE.items():
        trial._suggest(key, distribution)
    if trial.params["loss"] == "focal":
        trial.suggest_float("gamma", 0.5, 5.0)


def open_study(
    storage: Path | BaseStorage, sampler: dict[str, Any] = TPE, **keywords: Any
) -> SweepStudy:
    arguments: dict[str, Any] = {
        "owner": "a",
        "make_sampler": sampler_factory(sampler, 0),
        "pruner": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        "suggest": suggest,
    }
    opened = open_storage(f"sqlite:///{storage}") if isinstance(storage, Path) else storage
    return SweepStudy(opened, "s", ["maximize"], **(arguments | keywords))


@pytest.mark.parametrize("multivariate", [True, False])
def test_a_range_that_was_widened_is_searched(multivariate: bool) -> None:
    storage, sampler = (
        InMemoryStorage(),
        TPE | {"multivariate": multivariate, "group": multivariate},
    )
    drawn: list[float] = []
    for high, choices, count in ((1.0, "ab", 12), (2.0, "ab", 12)):
        space = {
            "x": FloatDistribution(0.0, high),
            "y": CategoricalDistribution(list(choices)),
        }

        def suggest_all(trial: Trial, space: dict[str, Any] = space) -> None:
            for key, distribution in space.items():
                trial._suggest(key, distribution)

        study = open_study(storage, sampler, suggest=suggest_all, distributions=space)
        for _ in range(count):
            number = study.ask()
            drawn.append(study.trial(number).params["x"])
            study.complete(number, [drawn[-1]])
    assert max(drawn[:12]) <= 1.0
    assert sum(x > 1.0 for x in drawn[12:]) > 6
    stored = storage.get_all_trials(0)
    assert [trial.distributions["x"].high for trial in stored] == [1.0] * 12 + [2.0] * 12


def value_of(trial: FrozenTrial, step: int) -> float:
    """Return a point of a learning curve that depends on the parameters alone."""
    return (
        -((trial.params["lr"] - 0.01) ** 2) * 1e4
        - trial.params["k"]
        - 1.0 / step
        + len(trial.params["loss"])
    )


NUM_TRIALS = 12


class Killed(Exception):  # noqa: N818 - what happens to the process
    """Stands for the death of the process."""


def work(study: SweepStudy, total: int, maybe_die: Callable[[], None]) -> None:
    """Do what one worker and its controller do, with each moment at which they may die."""
    while True:
        unfinished = study.running()
        if not unfinished and len(study) >= total:
            return
        maybe_die()
        number = unfinished[0] if unfinished else study.ask()
        maybe_die()
        for step in range(1, 5):
            if study.report(number, step, value_of(study.trial(number), step), may_prune=True):
                maybe_die()
                study.prune(number)
                break
            maybe_die()
        else:
            maybe_die()
            study.complete(number, [value_of(study.trial(number), 4)])
        maybe_die()


def contents(storage: Path | BaseStorage) -> list[tuple[Any, ...]]:
    """Return what the storage itself holds, read by Optuna alone."""
    url = f"sqlite:///{storage}" if isinstance(storage, Path) else storage
    trials = optuna.load_study(study_name="s", storage=url).trials
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in trials]


@pytest.mark.parametrize(
    "name",
    [
        "TPESampler",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("RandomSampler", "QMCSampler", "NSGAIISampler")
        ),
    ],
)
def test_a_study_resumed_after_deaths_equals_the_uninterrupted_one(
    tmp_path: Path, name: str
) -> None:
    sampler = TPE if name == "TPESampler" else {"_target_": f"optuna.samplers.{name}", "seed": 0}
    if name == "QMCSampler":
        sampler |= {
            "scramble": True,
            "warn_independent_sampling": False,
            "warn_asynchronous_seeding": False,
        }
    if name == "NSGAIISampler":
        sampler |= {"population_size": 5}
    memory = InMemoryStorage()
    work(open_study(memory, sampler), NUM_TRIALS, lambda: None)
    whole = contents(memory)
    assert [t[0] for t in whole] == list(range(NUM_TRIALS))
    assert {t[1] for t in whole} == {TrialState.COMPLETE, TrialState.PRUNED}

    dice = random.Random(0)
    deaths = 0

    def maybe_die() -> None:
        if dice.random() < 0.2:
            raise Killed

    while True:
        try:
            work(open_study(tmp_path / "killed.db", sampler), NUM_TRIALS, maybe_die)
            break
        except Killed:
            deaths += 1
    assert deaths > 5
    assert contents(tmp_path / "killed.db") == whole


def dying(method: Callable[..., Any], dice: random.Random) -> Callable[..., Any]:
    def write(*arguments: Any, **keywords: Any) -> Any:
        if dice.random() < 0.1:
            raise Killed
        return method(*arguments, **keywords)

    return write


def test_a_death_between_any_two_writes_loses_nothing() -> None:
    memory = InMemoryStorage()
    work(open_study(memory), 6, lambda: None)
    whole = contents(memory)
    writes = ["create_new_trial", "set_trial_intermediate_value", "set_trial_system_attr"]
    writes += ["set_trial_user_attr", "set_trial_state_values"]
    dice = random.Random(1)
    deaths = 0
    killed = InMemoryStorage()
    while True:
        study = open_study(killed)
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name in writes:
                monkeypatch.setattr(killed, name, dying(getattr(killed, name), dice))
            try:
                work(study, 6, lambda: None)
                break
            except Killed:
                deaths += 1
    assert deaths > 5
    assert contents(killed) == whole


def test_a_trial_is_stored_whole_once_it_is_drawn() -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    number = study.ask()
    [stored] = optuna.load_study(study_name="s", storage=storage).trials
    assert (number, stored.state) == (0, TrialState.RUNNING)
    assert stored.params == study.trial(0).params
    assert set(stored.params) >= set(SPACE)


def test_a_repeated_report_gets_the_same_answer() -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    good, bad = study.ask(), study.ask()
    assert study.report(good, 1, 1.0, may_prune=True) is False
    assert study.report(bad, 1, 0.0, may_prune=True) is True
    again = open_study(storage)
    assert again.report(bad, 1, 0.0, may_prune=True) is True
    assert again.report(good, 1, 1.0, may_prune=True) is False


def test_pruned_trials_keep_their_last_value_and_failed_ones_have_none() -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    for _ in range(3):
        study.ask()
    study.report(0, 1, 0.25, may_prune=False)
    study.prune(0)
    study.notes(1).error = "ValueError: no"
    study.fail(1)
    study.complete(2, [0.5])
    again = open_study(storage)
    assert [(t.state.name, t.values) for t in again.trials()] == [
        ("PRUNED", [0.25]),
        ("FAIL", None),
        ("COMPLETE", [0.5]),
    ]
    assert again.notes(1).error == "ValueError: no"
    assert again.running() == []


def test_presets_come_first_and_missing_parameters_are_drawn() -> None:
    storage = InMemoryStorage()
    study = open_study(storage, presets=[{"lr": 0.01, "loss": "f1"}, {"k": 3}])
    for _ in range(3):
        study.ask()
    first, second, third = (trial.params for trial in study.trials())
    assert (first["lr"], first["loss"]) == (0.01, "f1")
    assert 1 <= first["k"] <= 4
    assert second["k"] == 3
    assert third["lr"] != 0.01


def test_history_informs_the_sampler_but_takes_no_number() -> None:
    storage = InMemoryStorage()
    points = [({"lr": 0.01, "loss": "focal", "k": 1, "gamma": 1.0}, [float(i)]) for i in range(20)]
    out_of_range = {"lr": 5.0, "loss": "focal", "k": 1, "gamma": 1.0}
    points.append((out_of_range, [99.0]))
    history = past_trials(points, SPACE | {"gamma": FloatDistribution(0.5, 5.0)})
    assert len(history) == 20
    study = open_study(storage, history=history)
    assert study.ask() == 0
    assert len(study) == 1
    assert len(study.mirror.trials) == 21
    fresh = open_study(InMemoryStorage())
    fresh.ask()
    assert fresh.trial(0).params != study.trial(0).params


def test_a_trial_that_optuna_ends_while_it_runs_keeps_that_end(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db")
    number = study.ask()
    other = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    other.tell(number, 5.0)
    study.report(number, 1, 0.5, may_prune=False)
    study.set_attributes(number, {"size": 1})
    study.complete(number, [1.0])
    assert study.ask() == 1
    assert open_study(tmp_path / "study.db").trial(number).value == 5.0


def test_another_sweeps_study_is_refused() -> None:
    storage = InMemoryStorage()
    open_study(storage).ask()
    with pytest.raises(UserError, match="study 's' of another sweep; choose another name"):
        open_study(storage, owner="b")


def test_an_empty_study_goes_to_the_next_sweep() -> None:
    storage = InMemoryStorage()
    open_study(storage)
    assert open_study(storage, owner="b").ask() == 0
