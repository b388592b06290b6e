"""`python train.py` as a process of its own: signals, kills, and what is left on disk."""

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
        time.sleep(0.01)  # polls another process; the condition decides, not the time


def finished_epochs(run_dir: Path) -> int:
    try:
        return (run_dir / "events.jsonl").read_text().count('"type":"metrics"')
    except FileNotFoundError:
        return 0


def resume(directory: Path, *arguments: str) -> None:
    done = start(directory, "resume=outputs/first", *arguments)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, out + err


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_run_after_the_batch_and_names_the_command_that_goes_on(
    tmp_path: Path, number: int, code: int
) -> None:
    process = start(tmp_path, *LONG, "trainer.epochs=4000", "name=first")
    wait_until(lambda: finished_epochs(tmp_path / "outputs/first") >= 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, out + err
    assert "go on with: python train.py resume=outputs/first" in out
    assert "Traceback" not in out + err
    result = json.loads((tmp_path / "outputs/first/result.json").read_text())
    assert result["state"] == "stopped"
    assert result["best_epoch"] >= 1


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL after different epochs, again and again, until the run gets to its end."""
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
    assert_same_bytes(tmp_path / "outputs/whole", tmp_path / "outputs/first", "last.pt")
    assert_same_bytes(tmp_path / "outputs/whole", tmp_path / "outputs/first", "best.pt")


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


def test_plain_lines_where_there_is_no_terminal(command_line: CommandLine) -> None:
    outcome = command_line(*QUICK, "name=first")
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    for word in ("train loss", "val loss", "F1", "lr", "images/s"):
        assert word in lines[0]
    assert "\x1b" not in outcome.text
    assert "best epoch" in outcome.stdout
    assert "run: outputs/first" in outcome.stdout
    assert "device=cpu (no GPU found)" in outcome.stdout


def test_the_run_directory_is_complete(tmp_path: Path, command_line: CommandLine) -> None:
    command_line(*QUICK, "name=first", "loss=focal", "optim=adamp")
    run_dir = tmp_path / "outputs/first"
    result = json.loads((run_dir / "result.json").read_text())
    assert set(result) == {
        *(
            "state",
            "objective",
            "others",
            "best_epoch",
            "epochs",
            "metrics",
            "test",
            "seconds",
            "images_per_second",
        )
    }
    assert result["objective"]["metric"] == "val/f1_macro"
    assert result["objective"]["direction"] == "maximize"
    assert result["objective"]["value"] == result["metrics"]["val/f1_macro"]
    assert result["test"] is None
    for name in ("config.yaml", "environment.json", "split.csv", "events.jsonl", "train.log"):
        assert (run_dir / name).stat().st_size > 0, name
    for name in ("confusion_matrix.png", "curves.png"):
        assert (run_dir / "figures" / name).read_bytes().startswith(b"\x89PNG")
    best = checkpoint.load(run_dir / "checkpoints/best.pt")
    assert best["epoch"] == result["best_epoch"]
    assert oct(os.stat(run_dir / "result.json").st_mode & 0o777) == "0o644"


def test_an_official_test_split_is_evaluated_once_with_the_best_checkpoint(
    tmp_path: Path, command_line: CommandLine
) -> None:
    from tests.images import make_folder

    make_folder(tmp_path / "photos/train", per_class=20)
    for path in make_folder(tmp_path / "other", per_class=26).rglob("*.png"):
        if int(path.stem) >= 20:
            target = tmp_path / "photos/test" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    outcome = command_line(
        *QUICK,
        "data=image_folder",
        "data.root=photos",
        "data.image_size=12",
        "trainer.batch_size=8",
        "name=first",
    )
    assert outcome.code == 0, outcome.text
    result = json.loads((tmp_path / "outputs/first/result.json").read_text())
    assert 0 <= result["test"]["test/f1_macro"] <= 1
    assert "test/f1_macro" in outcome.stdout
    steps = [
        record["step"]
        for record in map(
            json.loads, (tmp_path / "outputs/first/events.jsonl").read_text().splitlines()
        )
        if record["type"] == "metrics" and "test/f1_macro" in record["values"]
    ]
    assert len(steps) == 1
