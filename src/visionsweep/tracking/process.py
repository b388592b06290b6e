"""The trainer's side of the upload: starts the uploader, waits for it at the end. Imports no mlflow."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from visionsweep.errors import ConfigError
from visionsweep.tracking.ack import num_behind, run_directories, without_password

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
SQLITE = "sqlite:///"
TERMINATE_SECONDS = 3.0
PROGRESS_SECONDS = 5.0  # between two lines on what is left to send


class UploaderProcess:
    """A running uploader. Nothing that happens to it raises here."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        directory: Path,
        uri: str,
        terminate_seconds: float = TERMINATE_SECONDS,
        on_answer: Callable[[str | None, int], None] | None = None,
    ) -> None:
        """``on_answer`` is told by another thread when the store stops answering (its error) or answers again (None).

        The second argument is the number of records that it does not have yet.
        """
        self.error: str | None = None  # the store's last error; None while it answers
        self._on_answer = on_answer
        self._process = process
        self._directory = directory
        self._uri = uri
        self._terminate_seconds = terminate_seconds
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def finish(self, wait_seconds: float, on_progress: Callable[[int], None]) -> int:
        """Say that no more records come, wait for the uploader, and return how many it has not sent.

        `on_progress` gets the records behind at once if there are any, every few seconds if it changes, and at the
        end. Ctrl-C ends the waiting.
        """
        deadline = time.monotonic() + wait_seconds
        shown, next_look = 0, 0.0
        try:
            self._close_stdin()
            while self._process.poll() is None and time.monotonic() < deadline:
                if time.monotonic() >= next_look:
                    behind, next_look = self._behind(), time.monotonic() + PROGRESS_SECONDS
                    if behind != shown:
                        on_progress(behind)
                        shown = behind
                self._wait(min(0.1, max(0.0, deadline - time.monotonic())))
        except KeyboardInterrupt:
            pass  # the records are safe in the run's directory
        self._end()
        behind = self._behind()
        if behind != shown:
            on_progress(behind)
        return behind

    def _behind(self) -> int:
        return sum(num_behind(run_dir, self._uri) for run_dir in run_directories(self._directory))

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _end(self) -> None:
        """Stop the process if it still runs; it can be cut off anywhere without harm."""
        if self._process.poll() is None:
            self._process.terminate()
            if not self._wait(self._terminate_seconds):
                self._process.kill()
                self._process.wait()
        self._reader.join(self._terminate_seconds)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    told = json.loads(line)
                    error, behind = told["error"], told["behind"]
                except (ValueError, KeyError, TypeError):  # not ours; its words are in the log
                    continue
                is_news = (error is None) != (self.error is None)
                self.error = error
                if is_news and self._on_answer is not None:
                    self._on_answer(error, behind)


def start_uploader(
    directory: Path,
    uri: str,
    experiment: str,
    wait_seconds: float = 60.0,
    on_answer: Callable[[str | None, int], None] | None = None,
) -> UploaderProcess:
    """Start the uploader of a run's or a sweep's directory, in a session of its own (Ctrl-C is not for it).

    `uri` is absolute (`resolve_uri`). `wait_seconds` is how long it goes on by itself if this process dies.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "visionsweep.tracking.uploader", str(directory)]
    command += ["--uri", uri, "--experiment", experiment, "--wait", str(wait_seconds)]
    with (directory / "uploader.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    return UploaderProcess(process, directory, uri, on_answer=on_answer)


def resolve_uri(uri: str | None, cwd: Path) -> str:
    """Return the tracking URI that means the same from every directory.

    None: `MLFLOW_TRACKING_URI`, else `mlflow.db` in `cwd`. Raises ConfigError for what MLflow cannot use.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    scheme = re.split(r"[+:]", uri)[0]
    if scheme not in SCHEMES or (scheme == "sqlite" and not uri.startswith(SQLITE)):
        raise ConfigError(
            f"tracking.uri: {without_password(uri)!r} is no database or server (MLflow 3.13 and later refuse "
            f"folders); use sqlite:///mlflow.db or http://HOST:5000"
        )
    if scheme != "sqlite":
        return uri
    path, mark, query = uri.removeprefix(SQLITE).partition("?")
    if path in ("", ":memory:"):
        raise ConfigError(f"tracking.uri: {uri!r} names no file; use sqlite:///mlflow.db")
    return f"{SQLITE}{cwd.resolve() / Path(path).expanduser()}{mark}{query}"


def ui_command(uri: str) -> str:
    """Return what opens MLflow's page for `uri`: a command, or the address of a server."""
    if uri.startswith("http"):
        return without_password(uri)
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        if path.is_relative_to(Path.cwd()):
            uri = f"{SQLITE}{path.relative_to(Path.cwd())}"
    return f"mlflow ui --backend-store-uri {shlex.quote(without_password(uri))}"
