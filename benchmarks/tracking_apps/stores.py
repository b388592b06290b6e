"""Stores that the tracking benchmark logs to: an SQLite file, a server on one, and a server that is dead."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 120.0


def sqlite_uri(directory: Path) -> str:
    """Return the URI of an MLflow database in a directory, which is made."""
    directory.mkdir(parents=True)
    return f"sqlite:///{directory / 'mlflow.db'}"


def initialize(uri: str) -> None:
    """Have MLflow make its tables, in a process of its own: two clients of a fresh file would break it."""
    subprocess.run(
        [sys.executable, "-c", f"from mlflow import MlflowClient; MlflowClient({uri!r}).search_experiments()"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def connect(uri: str) -> contextlib.closing[sqlite3.Connection]:
    """Return the database behind an SQLite URI."""
    return contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///")))


@contextlib.contextmanager
def mlflow_server(database: str, directory: Path) -> Iterator[str]:
    """Yield the address of `mlflow server` on a database: one worker, no execution of jobs."""
    port = _free_port()
    binaries = Path(sys.executable).parent
    command = [str(binaries / "mlflow"), "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(directory / "artifacts")]
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"mlflow server did not start:\n{(directory / 'server.log').read_text()[-3000:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # it ends its worker
        process.wait()


@contextlib.contextmanager
def refusing_server() -> Iterator[str]:
    """Yield an address that refuses every connection: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """Yield an address that accepts every connection and never answers, and the connections so far."""
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


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
