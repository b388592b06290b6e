"""The journal: valid JSON, torn and damaged lines, a full disk."""

import hashlib
import json
import math
import os

import pytest

from visionsweep.errors import UserError
from visionsweep.rundir.journal import Journal, read_journal, read_records, recorded_steps
from visionsweep.rundir.layout import JOURNAL


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def test_records_are_readable_as_they_are_written(journal, tmp_path):
    journal.start("run", "exp", {"optim.lr": 1e-3, "model": None}, {"git": "abc"})
    journal.metrics(1, {"val/loss": 0.1, "val/f1": 1 / 3}, time_ms=123)
    start, metrics = read_journal(tmp_path)
    assert (start["name"], start["experiment"], start["pid"]) == ("run", "exp", os.getpid())
    assert start["params"] == {"optim.lr": 1e-3, "model": None}
    assert start["tags"] == {"git": "abc"}
    assert metrics["values"] == {"val/loss": 0.1, "val/f1": 1 / 3}  # to the last bit
    assert (metrics["step"], metrics["time"]) == (1, 123)


def test_every_line_is_valid_json_whatever_the_value(journal, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    journal.start("r", "e", {"a": [math.inf, {"b": math.nan}], "path": tmp_path}, {})
    journal.metrics(1, {"nan": math.nan, "inf": math.inf, "minus": -math.inf})
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    start, metrics = (json.loads(line, parse_constant=refuse) for line in lines)
    assert start["params"] == {"a": ["inf", {"b": "nan"}], "path": str(tmp_path)}
    assert [float(value) for value in metrics["values"].values()][1:] == [math.inf, -math.inf]
    assert math.isnan(float(metrics["values"]["nan"]))


def test_a_resumed_run_keeps_its_uid_and_takes_the_new_tags(journal, tmp_path):
    journal.start("r", "e", {"lr": 1}, {"command": "first"})
    second = Journal(tmp_path)
    assert second.previous == read_journal(tmp_path)
    second.start("other", "e", {"lr": 2}, {"command": "second"})
    second.close()
    start, resume = read_journal(tmp_path)
    assert len(start["uid"]) == 32
    assert resume["type"] == "resume"
    assert resume["tags"] == {"command": "second"}
    assert "uid" not in resume
    assert "params" not in resume


@pytest.mark.parametrize("torn", [b'{"type":"metrics","ti', b"\x00" * 100_000])
def test_a_torn_last_line_is_skipped_by_readers_and_cut_by_the_next_writer(torn, journal, tmp_path):
    journal.start("r", "e", {}, {})
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_journal(tmp_path)) == 1
    Journal(tmp_path).close()
    assert path.read_bytes() == whole


def test_a_file_of_one_torn_line_becomes_empty(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'{"type":"sta')
    Journal(tmp_path).close()
    assert (tmp_path / JOURNAL).read_bytes() == b""


def test_a_damaged_line_is_named_and_the_others_are_kept(journal, tmp_path, caplog):
    journal.metrics(1, {"a": 1.0})
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b"\x00\x00\n[1]\n")
    journal.metrics(2, {"a": 1.0})
    assert [record["step"] for record in read_journal(tmp_path)] == [1, 2]
    assert caplog.text.count("skipped a damaged line") == 2


def test_a_full_disk_leaves_no_half_line(journal, tmp_path, monkeypatch):
    journal.metrics(1, {"a": 1.0})
    whole = (tmp_path / JOURNAL).read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, line: write(fd, line[:10]))
    with pytest.raises(OSError, match="no space left"):
        journal.metrics(2, {"a": 1.0})
    assert (tmp_path / JOURNAL).read_bytes() == whole


def test_artifacts_carry_hash_and_size(journal, tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/a.png").write_bytes(content)
    journal.artifact("figures/a.png", "figures")
    (record,) = read_journal(tmp_path)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert (record["size"], record["folder"]) == (256_000, "figures")


def test_records_are_read_in_pieces_of_any_size(journal, tmp_path):
    for step in range(50):
        journal.metrics(step, {"a": float(step)})
    for limit in (1, 100, 10_000):
        steps, offset = [], 0
        while True:
            records, end = read_records(tmp_path, offset, limit)
            if end == offset:
                break
            steps += [record["step"] for record in records]
            offset = end
        assert steps == list(range(50))


def test_recorded_steps(journal, tmp_path):
    assert recorded_steps(read_journal(tmp_path)) == set()
    for step in (1, 3, 2):
        journal.metrics(step, {"a": 1.0})
    journal.end("finished")
    assert recorded_steps(read_journal(tmp_path)) == {1, 2, 3}


def test_a_journal_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine\n")
    (tmp_path / JOURNAL).symlink_to("thesis.txt")
    with pytest.raises(UserError, match=r"events\.jsonl: expected a file, got a link to thesis"):
        Journal(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine\n"
