import subprocess
import sys
from pathlib import Path

import pytest

from visionsweep.tracking.ack import Ack, load_ack, run_directories, save_ack, sweep_directory
from visionsweep.tracking.sync import main

SYNC = Path(__file__).parents[2] / "sync.py"


def test_a_dry_run_says_what_is_missing_and_touches_nothing(make_run, tmp_path):
    _, run_dir = make_run()
    before = sorted(path.name for path in run_dir.iterdir())
    code = "import sys; from visionsweep.tracking.sync import main; status = main(sys.argv[1:]); "
    code += "assert 'mlflow' not in sys.modules; sys.exit(status)"
    command = [sys.executable, "-c", code, str(run_dir), "--dry-run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stderr == ""
    assert result.returncode == 1
    assert result.stdout == f"{run_dir}: finished, 0/6 records sent\n"
    assert sorted(path.name for path in run_dir.iterdir()) == before
    assert not (tmp_path / "mlflow.db").exists()


def test_a_directory_without_a_run_is_refused_in_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, str(SYNC), str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert (
        f"error: {tmp_path}: no run (events.jsonl) there; give a run's or a sweep's directory"
        in result.stderr
    )


def test_what_is_meant_instead_is_named(make_run, tmp_path, capsys):
    make_run("multirun/faces/0")
    assert main([str(tmp_path / "multirun")]) == 1
    assert capsys.readouterr().err.endswith(
        f"there; give what is in it, such as {tmp_path}/multirun/faces\n"
    )
    assert main([str(tmp_path / "nope")]) == 1
    assert "nope: no such directory" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_folder_of_single_runs_is_no_sweep(make_run, tmp_path, uri, capsys):
    from mlflow import MlflowClient

    for name in ("outputs/first", "outputs/7"):
        make_run(name)
    for _ in range(2):
        assert main([str(tmp_path / "outputs"), "--uri", uri, "--verify"]) == 0
    assert capsys.readouterr().out.count("verified") == 4
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["7", "first"]
    for name in ("first", "7"):
        run = MlflowClient(uri).get_run(load_ack(tmp_path / "outputs" / name, uri).run_id)
        assert "mlflow.parentRunId" not in run.data.tags


def test_runs_are_found_once_and_in_their_order(make_run, tmp_path):
    names = ["s/0/seed_0", "s/0/seed_2", "s/0/seed_10", "s/2", "s/10", "s/first"]
    for name in reversed(names):
        make_run(name)
    (tmp_path / "s/best").symlink_to("10")
    (tmp_path / "s/plots/deep").mkdir(parents=True)
    (tmp_path / "s/sweep.log").touch()
    assert run_directories(tmp_path / "s") == [tmp_path / name for name in names]
    assert run_directories(tmp_path / "s/0") == [tmp_path / name for name in names[:3]]
    assert run_directories(tmp_path / "s/2") == [tmp_path / "s/2"]
    assert run_directories(tmp_path / "nowhere") == []
    assert {sweep_directory(tmp_path / name) for name in names} == {tmp_path / "s"}


def test_two_known_stores_need_a_choice(make_run, capsys):
    _, run_dir = make_run()
    save_ack(run_dir, "http://a", Ack())
    save_ack(run_dir, "http://b", Ack())
    assert main([str(run_dir), "--dry-run"]) == 1
    assert (
        "--uri: choose where to send to; the runs know http://a, http://b"
        in capsys.readouterr().err
    )
    assert main([str(run_dir), "--dry-run", "--uri", "http://a"]) == 1
    assert "0/6 records sent" in capsys.readouterr().out


def test_a_masked_password_is_not_used(make_run, capsys):
    _, run_dir = make_run()
    save_ack(run_dir, "http://me:secret@lab", Ack())
    assert "secret" not in (run_dir / ".mlflow.json").read_text()
    assert main([str(run_dir), "--dry-run"]) == 1
    assert "--uri: choose" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_dead_server_is_named_after_a_few_attempts(make_run, capsys, monkeypatch):
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0, 0.0))
    _, run_dir = make_run()
    assert main([str(run_dir), "--uri", "http://127.0.0.1:9"]) == 1
    shown = capsys.readouterr()
    assert "Connection refused" in shown.err
    assert f"{run_dir}: finished, 0/6 records sent" in shown.out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_server_that_has_a_part_and_died_is_no_traceback_of_verify(make_run, capsys, monkeypatch):
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0,))
    _, run_dir = make_run()
    save_ack(run_dir, "http://127.0.0.1:9", Ack(run_id="known"))
    assert main([str(run_dir), "--uri", "http://127.0.0.1:9", "--verify"]) == 1
    shown = capsys.readouterr()
    assert "Connection refused" in shown.err
    assert "verified" not in shown.out
