"""Optuna's private API: whatever the sweep uses of it is here, each with a test of its own."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial


def trial_id(trial: FrozenTrial) -> int:
    """Return the storage's id of a trial; asking the storage costs one query per trial."""
    return trial._trial_id


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution can draw this value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):  # not one of the choices
        return False


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
