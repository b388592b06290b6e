"""The files of a sweep, read back."""

import csv
import errno
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.sweep.records import record
from visionsweep.sweep.results import replace_link, write_results
from visionsweep.sweep.trial_record import TrialRecord


def write(
    sweep_dir: Path, trials: Sequence[TrialRecord], directions: Sequence[str] = ("maximize",)
) -> None:
    write_results(
        sweep_dir,
        trials,
        directions,
        overrides_of=lambda trial: [f"x={trial.number}"],
        is_group=lambda key: False,
        program="python train.py",
    )


def rows_of(sweep_dir: Path) -> list[dict[str, str]]:
    with (sweep_dir / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_reads_back(tmp_path: Path) -> None:
    start = datetime(2026, 11, 25, 1, 2, 3).timestamp()
    params = {"loss": "focal", "optim.lr": 1e-05, "loss.gamma": None}
    trials = [
        record(1, 1 / 3, params=params, start=start, end=start + 61),
        record(0, 0.25, state="pruned", params={"loss": 'a, "b"', "flag": True}, epochs=3),
        record(2, state="running", params={}),
    ]
    write(tmp_path, trials)
    first, second, third = rows_of(tmp_path)
    columns = ["loss", "flag", "optim.lr", "loss.gamma"]
    assert list(first) == [
        *("number", "state", "value", "start", "end", "epochs", "directory"),
        *(f"params.{column}" for column in columns),
    ]
    cells = [first[name] for name in ("number", "state", "value", "epochs")]
    assert cells == ["0", "pruned", "0.25", "3"]
    assert [first[f"params.{column}"] for column in columns] == ['a, "b"', "true", "", ""]
    assert float(second["value"]) == 1 / 3
    assert second["start"].startswith("2026-11-25T01:02:03")
    assert datetime.fromisoformat(second["end"]).timestamp() == start + 61
    assert [second[f"params.{column}"] for column in columns] == ["focal", "", "1e-05", "null"]
    assert (third["state"], third["value"], third["end"]) == ("running", "", "")


def test_the_table_has_more_columns_if_they_are_used(tmp_path: Path) -> None:
    trials = [
        record(0, 0.5, 7, seed_values=(0.4, 0.6)),
        record(1, state="failed", error="ValueError: no", retries=2),
        record(2, 0.5, 7, duplicate_of=0, directory="0"),
    ]
    write(tmp_path, trials, ["maximize", "minimize"])
    rows = rows_of(tmp_path)
    assert list(rows[0])[2:4] == ["value_0", "value_1"]
    last = ["duplicate_of", "seed_std", "seed_values", "retries", "error"]
    assert list(rows[0])[-5:] == last
    assert [row["seed_values"] for row in rows] == ["[0.4, 0.6]", "", ""]
    assert float(rows[0]["seed_std"]) == pytest.approx(0.02**0.5)
    assert (rows[0]["retries"], rows[1]["retries"], rows[1]["error"]) == ("", "2", "ValueError: no")
    assert (rows[1]["value_0"], rows[2]["duplicate_of"], rows[2]["directory"]) == ("", "0", "0")


def test_the_results_file_is_upstreams_with_the_trials_number(tmp_path: Path) -> None:
    params = {"optim.lr": 1e-05, "loss": "focal", "text": "1e-3", "flag": False, "none": None}
    write(tmp_path, [record(0, 0.5, params=params), record(1, 0.25)])
    assert list(OmegaConf.load(tmp_path / "optimization_results.yaml").items()) == [
        ("name", "optuna"),
        ("best_params", params),
        ("best_value", 0.5),
        ("best_trial", 0),
    ]
    write(
        tmp_path,
        [record(0, 0.5, 2.0, params={"x": 1}), record(1, 0.25, 1.0)],
        ["maximize", "minimize"],
    )
    assert OmegaConf.load(tmp_path / "optimization_results.yaml") == {
        "name": "optuna",
        "solutions": [
            {"params": {"x": 1}, "values": [0.5, 2.0], "trial": 0},
            {"params": {}, "values": [0.25, 1.0], "trial": 1},
        ],
    }


def test_only_the_table_is_written_without_a_complete_trial(tmp_path: Path) -> None:
    write(tmp_path, [record(0, 0.5, state="pruned"), record(1, state="running")])
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_unchanged_files_are_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, [record(0, 0.5)])
    before = (tmp_path / "experiment/best.yaml").stat().st_ino
    write(tmp_path, [record(0, 0.5), record(1, 0.4)])
    assert (tmp_path / "experiment/best.yaml").stat().st_ino == before
    assert len(rows_of(tmp_path)) == 2
    write(tmp_path, [record(0, 0.5), record(1, 0.6)])
    assert OmegaConf.load(tmp_path / "experiment/best.yaml").x == 1


def test_the_link_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trial").write_text(name)
    write(tmp_path, [record(0, 0.5)])
    assert os.readlink(tmp_path / "best") == "0"
    seen = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append(os.readlink(tmp_path / "best"))
        replace(source, target)

    (tmp_path / ".best.new").symlink_to("left-by-a-killed-process")
    monkeypatch.setattr(os, "replace", watched)
    replace_link(tmp_path / "best", "1")
    assert seen == ["0"]  # still there until the moment of its replacement
    assert (tmp_path / "best" / "trial").read_text() == "1"
    assert not (tmp_path / ".best.new").is_symlink()


def test_a_folder_in_the_place_of_the_link_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "best").mkdir()
    write(tmp_path, [record(0, 0.5)])
    assert (tmp_path / "best").is_dir()
    assert not (tmp_path / ".best.new").is_symlink()
    assert "cannot link to the best trial" in caplog.text


def test_a_file_system_without_links_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on exFAT

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for value in (0.5, 0.6):
        write(tmp_path, [record(0, value)])
    assert caplog.text.count("cannot link to the best trial (Operation not permitted)") == 1
    assert (tmp_path / "trials.csv").read_text().count("0.6") == 1
