"""The uploader's process as the trainer sees it: start, progress, end. Imports no MLflow."""

import contextlib
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
from urllib.parse import unquote

from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import UPLOADER_LOG
from visionsweep.rundir.usable import refuse_link
from visionsweep.text import mask_passwords, sqlite_url
from visionsweep.tracking.ack import num_behind

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
SQLITE = "sqlite:///"
LOCAL_SERVER = "http://127.0.0.1:5000"  # of `mlflow ui`
TERMINATE_SECONDS = 3.0
PROGRESS_SECONDS = 5.0  # between two lines about what is left to send


class UploaderProcess:
    """A running uploader. Nothing that happens to it raises here."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        directory: Path,
        uri: str,
        terminate_seconds: float = TERMINATE_SECONDS,
        on_connection: Callable[[str | None, int], None] | None = None,
    ) -> None:
        """``on_connection`` is called by another thread when the store stops answering or resumes.

        It gets the store's error, None once it answers again, and the number of records behind.
        """
        self.error: str | None = None  # the store's last error; None while it answers
        self._on_connection = on_connection
        self._process = process
        self._directory = directory
        self._uri = uri
        self._terminate_seconds = terminate_seconds
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def finish(self, wait_seconds: float, on_progress: Callable[[int], None]) -> int:
        """Tell the uploader that the record is complete, wait for it, return what it did not send.

        `on_progress` gets the number of records behind: at once if there are any, every few
        seconds if it changed, and at the end. Ctrl-C ends the waiting.
        """
        deadline = time.monotonic() + wait_seconds
        shown, next_look = 0, 0.0
        try:
            self._close_stdin()
            while self._process.poll() is None and time.monotonic() < deadline:
                if time.monotonic() >= next_look:
                    behind, next_look = (
                        num_behind(self._directory, self._uri),
                        time.monotonic() + PROGRESS_SECONDS,
                    )
                    if behind != shown:
                        on_progress(behind)
                        shown = behind
                self._wait(min(0.1, max(0.0, deadline - time.monotonic())))
        except KeyboardInterrupt:
            pass  # the records are safe in the run's directory
        self._end()
        behind = num_behind(self._directory, self._uri)
        if behind != shown:
            on_progress(behind)
        return behind

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
        """Stop the process if it still runs, which is safe at any point."""
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
                    report = json.loads(line)
                    error, behind = report["error"], report["behind"]
                except (ValueError, KeyError, TypeError):  # not from the uploader
                    continue
                has_changed = (error is None) != (self.error is None)
                self.error = error
                if has_changed and self._on_connection is not None:
                    self._on_connection(error, behind)


def start_uploader(
    directory: Path,
    uri: str,
    experiment: str,
    wait_seconds: float = 60.0,
    on_connection: Callable[[str | None, int], None] | None = None,
) -> UploaderProcess:
    """Start the uploader of a run's or a sweep's directory; in a new session, so without Ctrl-C.

    `uri` is absolute (`resolve_uri`). If this process dies, the uploader continues for up to
    `wait_seconds`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "visionsweep.tracking.uploader", str(directory)]
    command += ["--experiment", experiment, "--wait", str(wait_seconds)]
    refuse_link(directory / UPLOADER_LOG)
    with (directory / UPLOADER_LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died; its log says why
        process.stdin.write(f"{uri}\n".encode())  # `ps` shows arguments to everybody
        process.stdin.flush()
    return UploaderProcess(process, directory, uri, on_connection=on_connection)


def resolve_uri(uri: str | None, cwd: Path) -> str:
    """Return the tracking URI with an absolute path.

    None stands for `MLFLOW_TRACKING_URI`, or else for `mlflow.db` in `cwd`. Raises `ConfigError`
    if MLflow cannot use it.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    scheme = re.split(r"[+:]", uri)[0]
    if scheme not in SCHEMES or (scheme == "sqlite" and not uri.startswith(SQLITE)):
        raise ConfigError(
            f"tracking.uri: {mask_passwords(uri)!r} is no database or server (MLflow 3.13 and "
            "later refuse folders); use sqlite:///mlflow.db or http://HOST:5000"
        )
    if scheme != "sqlite":
        return uri
    path, mark, query = uri.removeprefix(SQLITE).partition("?")
    if path in ("", ":memory:"):
        raise ConfigError(f"tracking.uri: {uri!r} names no file; use sqlite:///mlflow.db")
    return f"{sqlite_url(cwd.resolve() / Path(unquote(path)).expanduser())}{mark}{query}"


def page_lines(uri: str, page: str | None) -> list[str]:
    """Return the lines that tell how to open MLflow's page: a command, if need be, and an address.

    ``page`` is the address of the runs, relative to the server; None if none was sent.
    """
    server = uri.startswith("http")
    address = mask_passwords(uri if server else LOCAL_SERVER).rstrip("/")
    address += "" if page is None else f"/{page}"
    if server:
        return [f"compare runs: {address}"]
    return [f"compare runs: {_ui_command(uri)}", f"then open: {address}"]


def _ui_command(uri: str) -> str:
    """Return the command that serves a database."""
    if uri.startswith(SQLITE):
        path, mark, query = uri.removeprefix(SQLITE).partition("?")
        file = Path(unquote(path))
        if file.is_relative_to(Path.cwd()):
            uri = f"{sqlite_url(file.relative_to(Path.cwd()))}{mark}{query}"
    return f"mlflow ui --backend-store-uri {shlex.quote(mask_passwords(uri))}"
