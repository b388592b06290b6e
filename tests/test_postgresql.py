"""A study and MLflow's record in PostgreSQL survive a crash, as on a cluster."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command
from tests.mlflow_process import free_port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian's place
SUPERUSER = "postgres"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARIES, reason="needs the Debian package postgresql"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server; return USER@HOST:PORT."""
    account = SUPERUSER if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    directory = Path(
        tempfile.mkdtemp(prefix="postgresql-", dir="/tmp")
    )  # where that account may go
    if account is not None:
        shutil.chown(directory, account)
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        command = [BINARIES[-1] / program, *arguments]
        subprocess.run(
            command, user=account, cwd=directory, check=True, capture_output=True, timeout=90
        )

    run("initdb", "-D", "data", "-A", "trust", "-U", SUPERUSER)
    options = f"-p {port} -k {directory} -h 127.0.0.1"
    run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
    try:
        for name in ("optuna", "mlflow"):
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", SUPERUSER, name)
        yield f"{SUPERUSER}@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(directory)


def test_a_killed_sweep_is_resumed_and_its_record_is_complete(
    tmp_path: Path, train: Command, server: str
) -> None:
    command = [
        *(
            "--multirun",
            "study=faces",
            "hydra.sweeper.n_trials=4",
            "hydra.launcher.n_jobs=2",
            "trainer.epochs=3",
        ),
        f"hydra.sweeper.storage='postgresql://{server}/optuna'",
        f"tracking.uri=postgresql://{server}/mlflow",
    ]
    first = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    journal = tmp_path / "multirun/faces/0/events.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and '"metrics"' in journal.read_text()):  # amid the first trial
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    done = train("--multirun", "study=faces", "tracking.wait_seconds=120")
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "multirun/faces/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert not list(tmp_path.rglob("*.db"))
    done = train("multirun/faces", "--verify", script="sync.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "multirun/faces: the sweep's own run" in done.stdout
