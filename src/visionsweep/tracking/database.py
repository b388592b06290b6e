"""An SQLite database of MLflow's: created safely, whoever else opens it or dies meanwhile."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from mlflow import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from visionsweep.rundir.lock import lock_file
from visionsweep.text import sqlite_url
from visionsweep.tracking.process import SQLITE

CONNECT_SECONDS = 5
_DATABASES = ("postgresql", "mysql", "mssql")
_DRIVERS_WITH_TIMEOUT = ("psycopg2", "psycopg", "mysqldb", "pymysql")

log = logging.getLogger(__name__)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI, None for any other."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(unquote(path)) if uri.startswith(SQLITE) else None


@contextlib.contextmanager
def initialized(uri: str) -> Iterator[None]:
    """Let one process at a time initialize an SQLite database and turn its write-ahead log on.

    MLflow creates its tables without a lock: two processes that open a fresh file together break
    it for good (mlflow 3.17). So does a death in between, since each statement of a migration is
    committed before its version is; hence the file is made under another name. The log halves
    the cost of a write, and readers no longer block the writer.
    """
    database = sqlite_file(uri)
    if database is None:
        if uri.startswith(_DATABASES):
            _connect(uri)
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock_file(database.with_name(database.name + ".lock")):
            if not database.exists():
                _create(database)
            _turn_log_on(database)
            yield
    finally:
        _remove_misread_folders(uri, database)


def _turn_log_on(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("PRAGMA schema_version")  # fails if it is no database
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:  # in use by a reader: slower, but correct
            log.warning("%s stays without a write-ahead log: %s", database, error)


def _remove_misread_folders(uri: str, database: Path) -> None:
    """Remove the empty folders that MLflow makes for a quoted URL, which it does not unquote."""
    folder = Path(uri.removeprefix(SQLITE)).parent
    while not database.is_relative_to(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()
        folder = folder.parent


def _connect(uri: str) -> None:
    """Connect to a database once: MLflow tries for minutes, with four lines each time."""
    has_timeout = make_url(uri).get_driver_name() in _DRIVERS_WITH_TIMEOUT
    settings = {"connect_timeout": CONNECT_SECONDS} if has_timeout else {}
    create_engine(uri, poolclass=NullPool, connect_args=settings).connect().close()


def _create(database: Path) -> None:
    """Have MLflow create its tables in a temporary file, which becomes `database` when complete."""
    temporary = database.with_name(f".{database.name}.new")
    for suffix in ("", "-journal"):  # of a process that died
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
    uri = sqlite_url(temporary)
    MlflowClient(uri, registry_uri=uri).search_experiments(max_results=1)
    if database.exists():  # `mlflow ui`, which does not know the lock, was faster
        temporary.unlink()
    else:
        os.replace(temporary, database)
