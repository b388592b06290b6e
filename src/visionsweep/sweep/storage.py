"""Opens the storage of a study, and the study in it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection

from visionsweep.errors import UserError
from visionsweep.sweep._optuna import cached, create_missing_indexes, reopen
from visionsweep.sweep.patience import GaveUp, Patience, waiting_reason
from visionsweep.text import first_line, mask_passwords

_BUSY_SECONDS = 0.5  # how long SQLite itself waits, and keeps Ctrl-C waiting
OWNER = "sweep:id"  # study attribute: the sweep that the study belongs to


class PatientStorage:
    """A storage whose calls wait while the database is locked or the disk is full.

    Each call is one transaction, so it can be made again.
    """

    def __init__(self, storage: BaseStorage, patience: Patience) -> None:
        self._storage = storage
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, getattr(self._storage, name))

    def _call(self, method: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        try:
            return self._patience.call(method, *args, **keywords)
        except UpdateFinishedTrialError:  # ended with Optuna while it ran: the study keeps that end
            return None

    def reopen(self, study_id: int, trial_id: int, forget: str | None) -> None:
        """See `_optuna.reopen`."""
        self._patience.call(reopen, self._storage, study_id, trial_id, forget)


def open_storage(url: str, requests: Sequence[int] = ()) -> BaseStorage:
    """Return the storage of an Optuna URL. Its calls wait while it is locked.

    ``requests`` grows with each request to stop; a call that waits then raises `GaveUp`. Raises
    `UserError` if the storage cannot be opened.
    """
    options = (
        {"connect_args": {"timeout": _BUSY_SECONDS}}
        if url.startswith("sqlite")
        # A trial may report once per hour, and servers close idle connections.
        else {"pool_pre_ping": True}
    )
    patience = Patience(_name(url), requests)
    try:
        database = patience.call(RDBStorage, url, engine_kwargs=options)
        patience.call(create_missing_indexes, database)
        sqlalchemy.event.listen(database.engine, "handle_error", _pass_on)
        return cast(BaseStorage, PatientStorage(cached(database), patience))
    except GaveUp:
        raise
    except Exception as error:  # SQLAlchemy's, and those of each database driver
        is_import = isinstance(error, ImportError) and error.__cause__ is not None
        cause = error.__cause__ if is_import and error.__cause__ is not None else error
        reason = first_line(cause)
        if isinstance(cause, ModuleNotFoundError):
            reason += "; PostgreSQL needs pip install 'visionsweep[postgresql]'"
        raise UserError(
            f"hydra.sweeper.storage: cannot open {mask_passwords(str(url))} "
            f"({type(error).__name__}: {reason}). "
            "Expected an Optuna URL such as sqlite:///study.db or postgresql://HOST/DATABASE"
        ) from error


class _Busy(Exception):  # noqa: N818 - a state, not an error
    """A call that can be made again. Optuna itself would make some again, for ten seconds."""


def _pass_on(context: Any) -> None:
    if waiting_reason(context.original_exception) is not None:
        raise _Busy from context.original_exception


def _name(url: str) -> str:
    parsed = sqlalchemy.engine.make_url(url) if url.startswith("sqlite") else None
    return "the study's database" if parsed is None else str(parsed.database)


def open_study_id(
    storage: BaseStorage, name: str, directions: Sequence[StudyDirection], owner: str
) -> int:
    """Create the study, or open it if it belongs to `owner` or is empty; return its id.

    Raises `UserError` for the study of another sweep.
    """
    try:
        study_id = storage.create_new_study(list(directions), name)
    except DuplicatedStudyError:
        study_id = storage.get_study_id_from_name(name)
        is_own = storage.get_study_user_attrs(study_id).get(OWNER) == owner
        if not is_own and storage.get_n_trials(study_id):
            raise UserError(
                f"hydra.sweeper.study_name: the storage has a study '{name}' of another sweep; "
                "choose another name"
            ) from None
        if storage.get_study_directions(study_id) != list(directions):
            raise UserError(
                f"hydra.sweeper.direction: the stored study '{name}' has another direction"
            ) from None
    storage.set_study_user_attr(study_id, OWNER, owner)
    return study_id
