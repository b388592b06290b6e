"""The stores of the tracking benchmark: SQLite files and dead servers."""

import contextlib
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


def sqlite_uri(directory: Path) -> str:
    """Create a directory and return the URI of an MLflow database in it."""
    directory.mkdir(parents=True)
    return f"sqlite:///{directory / 'mlflow.db'}"


def initialize(uri: str) -> None:
    """Let MLflow create its tables in one process; two clients at once break a fresh file."""
    code = f"from mlflow import MlflowClient; MlflowClient({uri!r}).search_experiments()"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def connect(uri: str) -> contextlib.closing[sqlite3.Connection]:
    """Open the database of an SQLite URI."""
    return contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///")))


@contextlib.contextmanager
def refusing_server() -> Iterator[str]:
    """Yield an address that refuses connections: its port is bound but nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """Yield an address that accepts connections and never answers, and the connections."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                accepted.append(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()
