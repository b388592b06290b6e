"""A sweep of real runs on a disk that fills up: a tmpfs that is enlarged while the sweep waits."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from visionsweep.rundir.layout import TRIALS

WAITS = re.compile(r"paused: #\d|cannot grow, since the disk is full")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with 1.5 MB of room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(folder)]
    if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_sweep_waits_for_room_and_burns_no_trial(small_disk: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, str(ROOT / "train.py"), "--multirun", "study=s", "tracking=none"),
        *(f"hydra.sweep.dir={small_disk / 's'}", "hydra.sweeper.n_trials=5"),
        *("hydra.launcher.n_jobs=1", "trainer.epochs=2", "trainer.threads=1"),
    ]
    output = tmp_path / "output"
    with output.open("w") as file:
        sweep = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 120
        while not WAITS.search(output.read_text()):
            assert sweep.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        assert sweep.wait(120) == 0, output.read_text()
    finally:
        sweep.kill()
        sweep.wait()
    text = output.read_text()
    assert "Traceback" not in text
    assert len(WAITS.findall(text)) <= 2, text
    rows = (small_disk / "s" / TRIALS).read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [[str(n), "complete"] for n in range(5)]
