"""Opens the storage of a study, and the study in it."""

from collections.abc import Sequence

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection

from visionsweep.errors import UserError
from visionsweep.sweep._optuna import cached, create_missing_indexes
from visionsweep.text import first_line, mask_passwords

OWNER = "sweep:id"  # study attribute: the sweep that the study belongs to


def open_storage(url: str) -> BaseStorage:
    """Return the storage of an Optuna URL. Raises `UserError` if it cannot be opened."""
    options = (
        # The user may be looking at the file.
        {"connect_args": {"timeout": 60}}
        if url.startswith("sqlite")
        # A trial may report once per hour, and servers close idle connections.
        else {"pool_pre_ping": True}
    )
    try:
        database = RDBStorage(url, engine_kwargs=options)
        create_missing_indexes(database)
        return cached(database)
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
