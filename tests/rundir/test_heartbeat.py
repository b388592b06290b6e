"""The sign of life of a run, and the machine's load."""

import os
import time

from visionsweep.rundir import heartbeat as watch
from visionsweep.rundir.heartbeat import ALIVE_NAME, seconds_since_alive, watched
from visionsweep.rundir.journal import Journal, last_step, read_journal


def test_a_run_shows_that_it_lives_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "BEAT_SECONDS", 0.01)
    assert seconds_since_alive(tmp_path) is None
    path = tmp_path / ALIVE_NAME
    journal = Journal(tmp_path)
    with watched(tmp_path, journal, None):
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert seconds_since_alive(tmp_path) < 20
    os.utime(path, (0, 0))
    time.sleep(0.05)
    assert path.stat().st_mtime == 0  # nobody touches it any more
    assert seconds_since_alive(tmp_path) > 1e6
    assert sorted(os.listdir(tmp_path)) == [ALIVE_NAME, "events.jsonl"]
    journal.close()


def test_the_machines_load_is_sampled_and_counted_on_after_a_resume(tmp_path):
    journal = Journal(tmp_path)
    journal.metrics(3, {"val/loss": 1.0})
    for wanted in (2, 4):
        with watched(tmp_path, journal, 0.01):
            deadline = time.monotonic() + 20
            while len(samples(tmp_path)) < wanted and time.monotonic() < deadline:
                time.sleep(0.001)
    journal.close()
    found = samples(tmp_path)
    assert [record["step"] for record in found] == list(range(1, len(found) + 1))
    assert 0 < found[0]["values"]["system/system_memory_usage_percentage"] <= 100
    assert found[0]["values"]["system/process_memory_usage_megabytes"] > 1
    assert last_step(read_journal(tmp_path)) == 3  # a sample is no epoch


def samples(run_dir):
    return [record for record in read_journal(run_dir) if record["type"] == "system"]
