"""The study: what is stored when, and that a sweep taken up goes on as if it had never stopped."""

import contextlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from visionsweep.errors import UserError
from visionsweep.sweep.samplers import sampler_factory
from visionsweep.sweep.study import SweepStudy, open_storage, past_trials

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


def open_study(path: Path, sampler: dict[str, Any] = TPE, **keywords: Any) -> SweepStudy:
    arguments: dict[str, Any] = {
        "owner": "a",
        "make_sampler": sampler_factory(sampler, 0),
        "pruner": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        "suggest": suggest,
    }
    return SweepStudy(
        open_storage(f"sqlite:///{path}"), "s", ["maximize"], **(arguments | keywords)
    )


def value_of(trial: FrozenTrial, step: int) -> float:
    """A learning curve that depends on the parameters alone."""
    return (
        -((trial.params["lr"] - 0.01) ** 2) * 1e4
        - trial.params["k"]
        - 1.0 / step
        + len(trial.params["loss"])
    )


class Killed(Exception):  # noqa: N818 - as in test_resume
    pass


def work(study: SweepStudy, total: int, maybe_die: Callable[[], None]) -> None:
    """What one worker and its controller do, with every moment at which they may die."""
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


def contents(path: Path) -> list[tuple[Any, ...]]:
    """What the storage itself holds, read by Optuna alone."""
    trials = optuna.load_study(study_name="s", storage=f"sqlite:///{path}").trials
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
def test_a_study_taken_up_after_any_death_equals_the_uninterrupted_one(
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
    work(open_study(tmp_path / "whole.db", sampler), 16, lambda: None)
    whole = contents(tmp_path / "whole.db")
    assert [t[0] for t in whole] == list(range(16))
    assert {t[1] for t in whole} == {TrialState.COMPLETE, TrialState.PRUNED}

    dice = random.Random(0)
    deaths = 0

    def maybe_die() -> None:
        if dice.random() < 0.12:
            raise Killed

    while True:
        try:
            work(open_study(tmp_path / "killed.db", sampler), 16, maybe_die)
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


def test_the_storage_dies_between_any_two_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(open_study(tmp_path / "whole.db"), 6, lambda: None)
    whole = contents(tmp_path / "whole.db")
    writes = ["create_new_trial", "set_trial_intermediate_value", "set_trial_system_attr"]
    writes += ["set_trial_user_attr", "set_trial_state_values"]
    dice = random.Random(1)
    deaths = 0
    while True:
        study = open_study(tmp_path / "killed.db")
        for name in writes:
            monkeypatch.setattr(study._storage, name, dying(getattr(study._storage, name), dice))
        try:
            work(study, 6, lambda: None)
            break
        except Killed:
            deaths += 1
    assert deaths > 5
    assert contents(tmp_path / "killed.db") == whole


def test_a_trial_is_stored_whole_when_it_is_drawn(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db")
    number = study.ask()
    [stored] = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's.db'}").trials
    assert (number, stored.state) == (0, TrialState.RUNNING)
    assert stored.params == study.trial(0).params
    assert set(stored.params) >= set(SPACE)


def test_a_pruning_decision_is_repeated_when_the_report_is(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db")
    good, bad = study.ask(), study.ask()
    assert study.report(good, 1, 1.0, may_prune=True) is False
    assert study.report(bad, 1, 0.0, may_prune=True) is True
    again = open_study(tmp_path / "s.db")
    assert again.report(bad, 1, 0.0, may_prune=True) is True
    assert again.report(good, 1, 1.0, may_prune=True) is False


def test_pruned_trials_keep_their_last_value_and_failed_ones_have_none(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db")
    for _ in range(3):
        study.ask()
    study.report(0, 1, 0.25, may_prune=False)
    study.prune(0)
    study.notes(1).error = "ValueError: no"
    study.fail(1)
    study.complete(2, [0.5])
    again = open_study(tmp_path / "s.db")
    assert [(t.state.name, t.values) for t in again.trials()] == [
        ("PRUNED", [0.25]),
        ("FAIL", None),
        ("COMPLETE", [0.5]),
    ]
    assert again.notes(1).error == "ValueError: no"
    assert again.running() == []


def test_presets_come_first_and_missing_parameters_are_drawn(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db", presets=[{"lr": 0.01, "loss": "f1"}, {"k": 3}])
    for _ in range(3):
        study.ask()
    first, second, third = (trial.params for trial in study.trials())
    assert (first["lr"], first["loss"]) == (0.01, "f1")
    assert 1 <= first["k"] <= 4
    assert second["k"] == 3
    assert third["lr"] != 0.01


def test_history_informs_the_sampler_but_takes_no_number(tmp_path: Path) -> None:
    points = [({"lr": 0.01, "loss": "focal", "k": 1, "gamma": 1.0}, [float(i)]) for i in range(20)]
    points.append(
        ({"lr": 5.0, "loss": "focal", "k": 1, "gamma": 1.0}, [99.0])
    )  # outside of the range
    history = past_trials(points, SPACE | {"gamma": FloatDistribution(0.5, 5.0)})
    assert len(history) == 20
    study = open_study(tmp_path / "s.db", history=history)
    assert study.ask() == 0
    assert len(study) == 1
    assert len(study.mirror.trials) == 21
    fresh = open_study(tmp_path / "fresh.db")
    fresh.ask()
    assert fresh.trial(0).params != study.trial(0).params


def test_another_sweeps_study_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path / "s.db").ask()
    with pytest.raises(UserError, match="study 's' of another sweep; choose another name"):
        open_study(tmp_path / "s.db", owner="b")


def test_an_empty_study_of_a_sweep_that_never_began_is_taken_over(tmp_path: Path) -> None:
    open_study(tmp_path / "s.db")
    assert open_study(tmp_path / "s.db", owner="b").ask() == 0


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all.db"])
def test_a_storage_that_cannot_be_opened_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"hydra\.sweeper\.storage: cannot open") as error:
        open_storage(url)
    assert "\n" not in str(error.value)


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        UserError,
        match=r"cannot open lab/studies .*psycopg.*pip install 'visionsweep\[postgresql\]'",
    ):
        open_storage("postgresql+psycopg://me:secret@lab/studies")


@pytest.mark.parametrize(
    ("statements", "minimum"),
    [
        (("CREATE UNIQUE INDEX",), 1),
        pytest.param(("CREATE", "INSERT", "UPDATE"), 15, marks=pytest.mark.slow, id="any"),
    ],
)
def test_a_death_between_any_two_statements_leaves_a_storage_that_works(
    tmp_path: Path, statements: tuple[str, ...], minimum: int
) -> None:
    """Each statement is its own transaction in SQLite; a study's name stays unique all the same."""
    steps = 0
    for dies_at in itertools.count(1):
        path = tmp_path / f"{dies_at}.db"
        with dying_at(dies_at, statements) as is_dead:
            with contextlib.suppress(Death):
                open_study(path)
            if not is_dead():
                break
        steps += 1
        for number in range(2):
            assert open_study(path).ask() == number, f"died at statement {dies_at}"
    assert steps >= minimum


class Death(BaseException):
    """What no `except Exception` catches."""


@contextlib.contextmanager
def dying_at(count: int, statements: tuple[str, ...]) -> Iterator[Callable[[], bool]]:
    """Raise Death before the `count`-th of these statements; yields whether it was reached."""
    seen = 0

    def before(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        nonlocal seen
        seen += statement.lstrip().startswith(statements)
        if seen >= count:
            raise Death

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", before)
    try:
        yield lambda: seen >= count
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", before)
