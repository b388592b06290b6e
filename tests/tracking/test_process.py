import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from visionsweep.errors import ConfigError
from visionsweep.rundir.journal import Journal
from visionsweep.tracking.ack import num_behind
from visionsweep.tracking.database import sqlite_file
from visionsweep.tracking.process import UploaderProcess, page_lines, resolve_uri, start_uploader

DEAD_SERVER = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def no_uri_in_the_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def run_dir(tmp_path):
    journal = Journal(tmp_path / "run")
    journal.start("r", "e", {}, {})
    journal.metrics(1, {"a": 1.0})
    journal.end("finished")
    journal.close()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (None, "sqlite:////data/dir/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:////data/dir/mlflow.db"),
        ("sqlite:///sub/a b.db?timeout=1", "sqlite:////data/dir/sub/a b.db?timeout=1"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:////a%20b%3Fc/x.db", "sqlite:////a b%3Fc/x.db"),  # a URL, so it may be quoted
        ("sqlite:////50%/x#1.db", "sqlite:////50%25/x#1.db"),
        ("sqlite:///~/m.db", "sqlite:////home/somebody/m.db"),
        ("http://mlflow.lab:5000", "http://mlflow.lab:5000"),
        ("postgresql+psycopg2://u:p@host/db", "postgresql+psycopg2://u:p@host/db"),
    ],
)
def test_a_uri_means_the_same_from_every_directory(uri, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve_uri(uri, tmp_path).replace(str(tmp_path.resolve()), "/data/dir") == expected


@pytest.mark.parametrize("name", ["a%41b", "a%20b", "a?b", "a#b", "a b", "50%"])
def test_a_database_lies_in_the_folder_however_that_is_named(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    uri = resolve_uri(None, Path.cwd())
    assert sqlite_file(uri) == tmp_path / name / "mlflow.db"
    assert resolve_uri(uri, Path("/elsewhere")) == uri  # as `sync` does with a known one
    assert make_url(uri).database == str(tmp_path / name / "mlflow.db")
    shown = page_lines(uri, None)[0].split()[-1].strip("'")
    assert make_url(shown).database == "mlflow.db"


def test_the_config_wins_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    assert resolve_uri(None, tmp_path) == "http://other"
    assert resolve_uri("http://mine", tmp_path) == "http://mine"


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///tmp/mlruns", "sqlite:///", "sqlite:///:memory:", "sqlite://x"]
)
def test_a_uri_that_mlflow_cannot_use_is_refused(uri, tmp_path):
    with pytest.raises(ConfigError, match=r"^tracking\.uri: .*sqlite:///mlflow\.db"):
        resolve_uri(uri, tmp_path)


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("sqlite:///{here}/mlflow.db", "mlflow ui --backend-store-uri sqlite:///mlflow.db"),
        (
            "sqlite:////else where/m.db",
            "mlflow ui --backend-store-uri 'sqlite:////else where/m.db'",
        ),
        ("sqlite:////a@b/m.db", "mlflow ui --backend-store-uri sqlite:////a@b/m.db"),
    ],
)
def test_a_database_needs_a_command_before_its_page_opens(uri, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    address = "http://127.0.0.1:5000/#/experiments/1/runs"
    expected = [f"compare runs: {command}", f"then open: {address}"]
    assert page_lines(uri.format(here=tmp_path), "#/experiments/1/runs") == expected


@pytest.mark.parametrize("uri", ["http://me:secret@lab:5000", "http://me:secret@lab:5000/"])
def test_a_server_needs_only_the_address(uri):
    assert page_lines(uri, None) == ["compare runs: http://me:***@lab:5000"]
    page = "#/experiments/1/runs"
    assert page_lines(uri, page) == [f"compare runs: http://me:***@lab:5000/{page}"]


@pytest.mark.slow
def test_a_dead_server_costs_the_wait_and_nothing_else(run_dir):
    uploader = start_uploader(run_dir, DEAD_SERVER, "e")
    assert os.getsid(uploader.pid) != os.getsid(0)  # the terminal's Ctrl-C does not reach it
    deadline = time.monotonic() + 60
    while uploader.error is None and time.monotonic() < deadline:
        time.sleep(0.05)  # the process is importing mlflow
    shown = []
    assert uploader.finish(wait_seconds=0.5, on_progress=shown.append) == 3
    assert shown == [3]
    assert "Connection refused" in uploader.error
    assert "Connection refused" in (run_dir / "uploader.log").read_text()
    assert num_behind(run_dir, DEAD_SERVER) == 3


def fake_uploader(run_dir, code, **settings):
    command = [sys.executable, "-S", "-c", f"import signal, sys, time; {code}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return UploaderProcess(process, run_dir, DEAD_SERVER, **settings)


def test_an_uploader_that_dies_at_once_raises_nothing(run_dir):
    uploader = fake_uploader(run_dir, "print('no JSON'); sys.exit(1)")
    shown = []
    assert uploader.finish(30, shown.append) == 3
    assert shown == [3]


def test_each_change_of_the_connection_is_reported_once(run_dir):
    reports = [("null", 0), ('"refused"', 3), ('"refused again"', 4), ("null", 2)]
    lines = [f'{{"error": {error}, "behind": {behind}}}' for error, behind in reports]
    calls = []
    uploader = fake_uploader(
        run_dir,
        f"print({chr(10).join(lines)!r})",
        on_connection=lambda *report: calls.append(report),
    )
    uploader.finish(30, lambda behind: None)
    assert calls == [("refused", 3), (None, 2)]


def test_an_uploader_that_does_not_end_is_killed(run_dir):
    code = "signal.signal(15, signal.SIG_IGN); print('{}', flush=True); time.sleep(99)"
    uploader = fake_uploader(run_dir, code, terminate_seconds=0.2)
    assert uploader.finish(0.5, lambda behind: None) == 3
    assert uploader._process.returncode == -signal.SIGKILL
