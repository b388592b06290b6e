"""A run that a sweep paused becomes a pruned one."""

import json
from pathlib import Path

from visionsweep.rundir.end_paused import end_paused_run
from visionsweep.rundir.journal import Journal, read_journal
from visionsweep.rundir.layout import LAST
from visionsweep.rundir.result import read_result, write_result


def make_run(run_dir: Path, state: str) -> None:
    (run_dir / LAST).parent.mkdir(parents=True)
    (run_dir / LAST).write_bytes(b"weights")
    write_result(run_dir, {"state": state, "epochs": 2})
    journal = Journal(run_dir)
    journal.start("run", "", {}, {})
    journal.end("stopped")
    journal.close()


def test_a_paused_run_becomes_a_pruned_one_without_its_last_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, "stopped")
    for _ in range(2):  # the sweep may have died in between
        end_paused_run(tmp_path)
        assert read_result(tmp_path) == {"state": "pruned", "epochs": 2}
        assert read_journal(tmp_path)[-1]["state"] == "pruned"
        assert not (tmp_path / LAST).exists()
    assert [record["type"] for record in read_journal(tmp_path)].count("end") == 2


def test_a_run_that_ended_stays_as_it_is(tmp_path: Path) -> None:
    make_run(tmp_path, "finished")
    end_paused_run(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["state"] == "finished"
    assert (tmp_path / LAST).exists()


def test_the_directory_of_another_app_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text("{}")
    end_paused_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.json"]
