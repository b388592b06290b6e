"""Opening the storage of a study."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from visionsweep.errors import UserError
from visionsweep.sweep.storage import open_storage, open_study_id


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all.db"])
def test_an_error_of_the_storage_is_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"hydra\.sweeper\.storage: cannot open") as error:
        open_storage(url)
    assert "\n" not in str(error.value)


def test_the_error_of_a_missing_driver_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"cannot open .*@lab/studies .*psycopg") as error:
        open_storage("postgresql+psycopg://me:secret@lab/studies")
    assert "pip install 'visionsweep[postgresql]'" in str(error.value)
    assert "secret" not in str(error.value)


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
    """Each statement is a transaction in SQLite; a study's name stays unique all the same."""

    def opened(path: Path) -> tuple[BaseStorage, int]:
        storage = open_storage(f"sqlite:///{path}")
        return storage, open_study_id(storage, "s", [StudyDirection.MAXIMIZE], "a")

    steps = 0
    for dies_at in itertools.count(1):
        path = tmp_path / f"{dies_at}.db"
        with dying_at(dies_at, statements) as is_dead:
            with contextlib.suppress(Death):
                opened(path)
            if not is_dead():
                break
        steps += 1
        for number in range(2):
            storage, study_id = opened(path)
            assert storage.get_n_trials(study_id) == number, f"died at statement {dies_at}"
            storage.create_new_trial(study_id)
    assert steps >= minimum


class Death(BaseException):
    """Not caught by `except Exception`."""


@contextlib.contextmanager
def dying_at(count: int, statements: tuple[str, ...]) -> Iterator[Callable[[], bool]]:
    """Raise Death before the `count`-th of these statements; yield whether it was reached."""
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
