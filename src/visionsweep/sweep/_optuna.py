"""Optuna's private API: whatever the sweep uses of it is here, each with a test of its own."""

import copy
import importlib.util
import sys
from typing import Any

import optuna
from optuna._imports import _LazyImport
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import delete
from sqlalchemy.orm import Session

FIXED_PARAMS = "fixed_params"  # trial attribute: what `enqueue_trial` was given
_RUNG = "completed_rung_"  # trial attributes: what SuccessiveHalvingPruner saw of it


def trial_id(trial: FrozenTrial) -> int:
    """Return the storage's id of a trial; asking the storage costs one query per trial."""
    return trial._trial_id


def fixed_params(trial: Trial) -> dict[str, Any]:
    """Return the parameters that a trial was enqueued with."""
    return dict(trial._cached_frozen_trial.system_attrs.get(FIXED_PARAMS, {}))


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution can draw this value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):  # not one of the choices
        return False


def reopen(storage: BaseStorage, study_id: int, trial_id: int, forget: str | None) -> None:
    """Make an ended trial a running one again, without values, reports, and the attribute `forget`.

    None: its reports and attributes stay. Optuna itself never changes a trial that has ended.
    """
    if isinstance(storage, InMemoryStorage):
        trial = copy.copy(storage._get_trial(trial_id))
        trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
        if forget is None:
            storage._set_trial(trial_id, trial)
            return
        trial.intermediate_values = {}
        trial.system_attrs = {
            key: value
            for key, value in trial.system_attrs.items()
            if key != forget and not key.startswith(_RUNG)
        }
        storage._set_trial(trial_id, trial)
        return
    assert isinstance(storage, _CachedStorage)
    attributes = models.TrialSystemAttributeModel
    with Session(storage._backend.engine) as session, session.begin():
        values, reports = models.TrialValueModel, models.TrialIntermediateValueModel
        session.execute(delete(values).where(values.trial_id == trial_id))
        if forget is not None:
            session.execute(delete(reports).where(reports.trial_id == trial_id))
            is_named = attributes.key == forget
            is_rung = attributes.key.startswith(_RUNG, autoescape=True)
            session.execute(
                delete(attributes).where(attributes.trial_id == trial_id).where(is_named | is_rung)
            )
        row = session.get_one(models.TrialModel, trial_id)
        row.state, row._datetime_complete_utc = TrialState.RUNNING, None
    storage._studies.pop(study_id, None)


def missing_package(instance: BaseSampler | BasePruner) -> str | None:
    """Return a package that a sampler or pruner would import late, and that is not installed."""
    inner = [v for v in vars(instance).values() if isinstance(v, BaseSampler | BasePruner)]
    for one in (instance, *inner):
        for value in vars(sys.modules[type(one).__module__]).values():
            if isinstance(value, _LazyImport):
                package = value._name.partition(".")[0]
                if importlib.util.find_spec(package) is None:
                    return package
    return None


def cached(database: RDBStorage) -> BaseStorage:
    """Return the storage behind Optuna's cache of finished trials, as in `create_study`."""
    return optuna.storages.get_storage(database)


def create_missing_indexes(database: RDBStorage) -> None:
    """Create the indexes that a process left out if it died just after it created their tables.

    SQLAlchemy creates indexes with new tables only. Without the unique index two studies can have
    the same name.
    """
    for table in models.BaseModel.metadata.sorted_tables:
        for index in table.indexes:
            index.create(database.engine, checkfirst=True)
