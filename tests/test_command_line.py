"""`train` from outside: signals, kills, and what is left on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT, CommandLine
from tests.run.test_resume import assert_same_bytes
from visionsweep.rundir.layout import (
    BEST,
    CONFIG,
    ENVIRONMENT,
    JOURNAL,
    LAST,
    RESULT,
    RUN_LOG,
    SPLIT,
    UPLOADER_LOG,
)
from visionsweep.training import checkpoint

LONG = [*QUICK, "trainer.epochs=40", "augment=basic", "optim=adamp"]


def start(directory: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(
        command, cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_until(
    condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 60
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at another process


def finished_epochs(run_dir: Path) -> int:
    try:
        return (run_dir / JOURNAL).read_text().count('"type":"metrics"')
    except FileNotFoundError:
        return 0


def resume(directory: Path, *arguments: str) -> None:
    done = start(directory, "resume=outputs/first", *arguments)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, out + err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_the_batch_and_names_the_resume_command(
    tmp_path: Path, number: int, code: int
) -> None:
    process = start(tmp_path, *LONG, "trainer.epochs=4000", "name=first")
    wait_until(lambda: finished_epochs(tmp_path / "outputs/first") >= 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, out + err
    train = os.path.relpath(ROOT / "train.py", tmp_path)
    assert f"resume with: python {train} resume=outputs/first" in out
    assert "Traceback" not in out + err
    result = json.loads((tmp_path / "outputs/first" / RESULT).read_text())
    assert result["state"] == "stopped"
    assert result["best_epoch"] >= 1


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL after different epochs, until the run reaches its end."""
    whole = start(tmp_path, *LONG, "name=whole")
    out, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, out + err
    process = start(tmp_path, *LONG, "name=first")
    kills = 0
    for target in (1, 2, 5, 6, 13, 27, 39):
        wait_until(lambda n=target: finished_epochs(tmp_path / "outputs/first") >= n, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        process = start(tmp_path, "resume=outputs/first")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert kills == 7
    assert_same_bytes(tmp_path / "outputs/whole", tmp_path / "outputs/first", Path(LAST).name)
    assert_same_bytes(tmp_path / "outputs/whole", tmp_path / "outputs/first", Path(BEST).name)


@pytest.mark.slow
def test_a_directory_in_use_names_its_process(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "trainer.epochs=4000", "name=first")
    try:
        wait_until(lambda: finished_epochs(tmp_path / "outputs/first") >= 1, process)
        other = start(tmp_path, "resume=outputs/first")
        out, err = other.communicate(timeout=60)
        assert other.returncode == 1, out
        assert f"outputs/first is in use by process {process.pid}" in err
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_run_prints_plain_lines_and_leaves_a_complete_directory(
    tmp_path: Path, command_line: CommandLine
) -> None:
    run_dir = tmp_path / "outputs/first"
    run_dir.mkdir(parents=True)
    (run_dir / SPLIT).touch()  # left by a run that failed before it started: nothing to lose
    outcome = command_line(*QUICK, "name=first", "loss=focal", "optim=adamp")
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    for word in ("train loss", "val loss", "F1", "lr", "images/s"):
        assert word in lines[0]
    assert "\x1b" not in outcome.text  # no terminal, no progress bar
    for text in ("best epoch", "run: outputs/first", "device=cpu (no GPU found)"):
        assert text in outcome.stdout

    result = json.loads((run_dir / RESULT).read_text())
    assert {"state", "objective", "best_epoch", "epochs", "metrics", "seconds"} <= set(result)
    assert result["objective"]["metric"] == "val/f1_macro"
    assert result["objective"]["value"] == result["metrics"]["val/f1_macro"]
    assert result["test"] is None
    for name in (CONFIG, ENVIRONMENT, SPLIT, JOURNAL, RUN_LOG, LAST):
        assert (run_dir / name).stat().st_size > 0, name
    assert checkpoint.load(run_dir / BEST)["epoch"] == result["best_epoch"]
    assert oct((run_dir / RESULT).stat().st_mode & 0o777) == "0o644"

    assert not list(tmp_path.glob("mlflow*"))  # tracking=none
    assert not (run_dir / UPLOADER_LOG).exists()

    outcome = command_line("resume=outputs/first")
    assert outcome.code == 0
    assert "outputs/first is already finished" in outcome.stdout
