"""The heartbeat of a run, and samples of the machine's load."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from visionsweep.rundir import heartbeat as module
from visionsweep.rundir.heartbeat import heartbeat, seconds_since_alive
from visionsweep.rundir.journal import Journal, read_journal, recorded_steps
from visionsweep.rundir.layout import HEARTBEAT, JOURNAL


def test_a_run_beats_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    assert seconds_since_alive(tmp_path) is None
    path = tmp_path / HEARTBEAT
    journal = Journal(tmp_path)
    with heartbeat(tmp_path, journal, None):
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        age = seconds_since_alive(tmp_path)
        assert age is not None
        assert age < 20
    os.utime(path, (0, 0))
    time.sleep(0.05)
    age = seconds_since_alive(tmp_path)  # nobody touches it any more
    assert age is not None
    assert age > 1e6
    assert sorted(os.listdir(tmp_path)) == [HEARTBEAT, JOURNAL]
    journal.close()


def test_samples_of_the_load_are_numbered_across_a_resume(tmp_path: Path) -> None:
    for wanted in (2, 4):
        journal = Journal(tmp_path)
        journal.metrics(3, {"val/loss": 1.0})
        with heartbeat(tmp_path, journal, 0.01):
            deadline = time.monotonic() + 20
            while len(samples(tmp_path)) < wanted and time.monotonic() < deadline:
                time.sleep(0.001)
        journal.close()
    found = samples(tmp_path)
    assert [record["step"] for record in found] == list(range(1, len(found) + 1))
    assert 0 < found[0]["values"]["system/system_memory_usage_percentage"] <= 100
    assert found[0]["values"]["system/process_memory_usage_megabytes"] > 1
    assert max(recorded_steps(read_journal(tmp_path))) == 3  # a sample is not an epoch


def samples(run_dir: Path) -> list[dict[str, Any]]:
    return [record for record in read_journal(run_dir) if record["type"] == "system"]
