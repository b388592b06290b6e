"""Optuna's private API, as `visionsweep.sweep._optuna` uses it: one test per use."""

import importlib.util
import re
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from visionsweep.sweep import _optuna


@pytest.fixture
def database(tmp_path: Path) -> RDBStorage:
    return RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")


def test_trial_id_is_the_storages(database: RDBStorage) -> None:
    for name in ("a", "b"):  # the ids of a second study do not begin at its numbers
        study = optuna.create_study(storage=database, study_name=name)
        study.ask()
    [trial] = study.get_trials(deepcopy=False)
    assert database.get_trial_number_from_id(_optuna.trial_id(trial)) == trial.number
    assert database.get_trial(_optuna.trial_id(trial)).number == 0
    assert _optuna.trial_id(trial) != trial.number


def test_contains() -> None:
    choices, numbers = CategoricalDistribution(["a", "b"]), FloatDistribution(0.0, 1.0)
    assert [_optuna.contains(choices, value) for value in ("a", "c")] == [True, False]
    assert [_optuna.contains(numbers, value) for value in (1.0, 1.5, "a")] == [True, False, False]


def test_a_package_that_a_sampler_imports_late(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = optuna.samplers.CmaEsSampler()
    inner = optuna.samplers.TPESampler()
    inner._random_sampler = sampler
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cmaes" else found(name)
    )
    assert _optuna.missing_package(sampler) == _optuna.missing_package(inner) == "cmaes"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert _optuna.missing_package(sampler) is None


def test_the_storage_is_cached(database: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the cache each look at a trial that has ended is a query."""
    storage = _optuna.cached(database)
    study = optuna.create_study(storage=storage)
    study.tell(study.ask(), 0.5)
    [trial] = study.trials
    monkeypatch.setattr(database, "get_trial", None)
    assert storage.get_trial(_optuna.trial_id(trial)).value == 0.5


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_an_ended_trial_is_opened_again(database: RDBStorage, kind: str) -> None:
    storage = _optuna.cached(database) if kind == "sqlite" else optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s")
    study.enqueue_trial({"x": 0.5})
    for value in (None, 1.0):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(0.5, 1)
        for key in ("told", "completed_rung_0", "kept"):
            storage.set_trial_system_attr(trial._trial_id, key, 1)
        study.tell(trial, value, state=None if value else optuna.trial.TrialState.FAIL)
    other = study.trials[1]
    study_id = storage.get_study_id_from_name("s")
    _optuna.reopen(storage, study_id, _optuna.trial_id(study.trials[0]), "told")
    first = study.trials[0]
    assert (first.state.name, first.params) == ("RUNNING", {"x": 0.5})
    assert (first.values, first.intermediate_values, first.datetime_complete) == (None, {}, None)
    assert first.system_attrs == {"kept": 1, _optuna.FIXED_PARAMS: {"x": 0.5}}
    assert study.trials[1] == other
    study.tell(0, 2.0)
    assert [trial.value for trial in study.trials] == [2.0, 1.0]


def test_missing_indexes_are_created_again(database: RDBStorage) -> None:
    def names() -> set[str]:
        inspector = sqlalchemy.inspect(database.engine)
        tables = inspector.get_table_names()
        return {str(i["name"]) for table in tables for i in inspector.get_indexes(table)}

    before = names()
    assert "ix_studies_study_name" in before
    for table in models.BaseModel.metadata.sorted_tables:
        for index in table.indexes:
            index.drop(database.engine)
    assert not before & names()
    _optuna.create_missing_indexes(database)
    assert names() == before
    _optuna.create_missing_indexes(database)


def test_only_one_module_uses_the_private_api() -> None:
    source = Path(_optuna.__file__).parent
    private = re.compile(r"(?<!self)\.(_trial_id|_study_id|_storage|_contains|_rdb)\b")
    for path in source.rglob("*.py"):
        found = private.findall(path.read_text(encoding="utf-8"))
        assert not found or path.name == "_optuna.py", (path, found)


def test_fixed_params_are_what_a_trial_was_enqueued_with() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5, "y": "a"})
    assert _optuna.fixed_params(study.ask()) == {"x": 0.5, "y": "a"}
    assert _optuna.fixed_params(study.ask()) == {}
