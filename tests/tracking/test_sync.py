import shutil
import subprocess
import sys

import pytest
from sqlalchemy.exc import OperationalError

from visionsweep.tracking.ack import Ack, load_ack, save_ack
from visionsweep.tracking.database import sqlite_file
from visionsweep.tracking.sync import main

DEAD_SERVER = "http://127.0.0.1:9"  # the discard port: nothing listens

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_dry_run_shows_what_is_missing_and_touches_nothing(make_run, tmp_path):
    """In a process of its own, since it must not import MLflow."""
    _, run_dir = make_run()
    before = sorted(path.name for path in run_dir.iterdir())
    code = "import sys; from visionsweep.tracking.sync import main; status = main(sys.argv[1:]); "
    code += "assert 'mlflow' not in sys.modules; sys.exit(status)"
    command = [sys.executable, "-c", code, str(run_dir), "--dry-run"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == f"{run_dir}: finished, 0/6 records sent\n"
    assert sorted(path.name for path in run_dir.iterdir()) == before
    assert not (tmp_path / "mlflow.db").exists()


def test_a_directory_without_a_run_is_refused_in_one_line(make_run, tmp_path, capsys):
    def error(directory):
        assert main([str(directory)]) == 1
        return capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    hint = "give the directory of a run or a sweep"
    expected = f"error: {tmp_path}/empty holds no run (no events.jsonl); {hint}\n"
    assert error(tmp_path / "empty") == expected
    assert error(tmp_path / "nope") == f"error: {tmp_path}/nope does not exist; {hint}\n"
    make_run("multirun/faces/0")
    assert error(tmp_path / "multirun").endswith(f", such as {tmp_path}/multirun/faces\n")


def test_a_folder_of_single_runs_is_no_sweep(make_run, tmp_path, uri, client, capsys):
    for name in ("outputs/first", "outputs/7"):
        make_run(name, epochs=1)
    assert main([str(tmp_path / "outputs"), "--uri", uri, "--verify"]) == 0
    assert capsys.readouterr().out.count("verified") == 2
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["7", "first"]
    for name in ("first", "7"):
        run = client.get_run(load_ack(tmp_path / "outputs" / name, uri).run_id)
        assert "mlflow.parentRunId" not in run.data.tags


def test_two_known_stores_need_a_choice(make_run, capsys):
    _, run_dir = make_run()
    save_ack(run_dir, "http://a", Ack())
    save_ack(run_dir, "http://b", Ack())
    assert main([str(run_dir), "--dry-run"]) == 1
    assert "choose a store with --uri; the runs know http://a, http://b" in capsys.readouterr().err
    assert main([str(run_dir), "--dry-run", "--uri", "http://a"]) == 1
    assert "0/6 records sent" in capsys.readouterr().out


@pytest.mark.parametrize(
    "uri", ["http://me:secret@lab", "https://secret@lab", "postgresql:///d?password=secret"]
)
def test_a_masked_password_is_not_used(uri, make_run, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, run_dir = make_run()
    save_ack(run_dir, uri, Ack())
    assert "secret" not in (run_dir / ".mlflow.json").read_text()
    assert main([str(run_dir), "--dry-run"]) == 1
    assert "choose a store with --uri" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main([str(run_dir), "--dry-run"]) == 1
    assert "0/6 records sent" in capsys.readouterr().out


@pytest.mark.parametrize("run_id", [None, "known"])
def test_a_dead_server_is_named_after_a_few_attempts(run_id, make_run, capsys, monkeypatch):
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0,))
    _, run_dir = make_run()
    save_ack(run_dir, DEAD_SERVER, Ack(run_id=run_id))
    assert main([str(run_dir), "--uri", DEAD_SERVER, "--verify"]) == 1
    shown = capsys.readouterr()
    assert "Connection refused" in shown.err
    assert f"{run_dir}: finished, 0/6 records sent" in shown.out
    assert "verified" not in shown.out


def test_a_folder_whose_name_means_something_in_a_url_gets_the_database(
    make_run, tmp_path, uri, monkeypatch, capsys
):
    folder = tmp_path / "50%/a%20b?c#d e"
    folder.mkdir(parents=True)
    _, run_dir = make_run(folder.relative_to(tmp_path) / "run", epochs=1)
    shutil.copy(sqlite_file(uri), folder / "mlflow.db")  # creating one takes seconds
    monkeypatch.chdir(folder)
    for _ in range(2):  # the second time from what the run knows
        assert main([str(run_dir), "--verify"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["50%"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_file_that_is_no_database_ends_it_at_once(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", ())
    _, run_dir = make_run()
    (tmp_path / "notes.txt").write_text("no database, whatever it is called" * 9)
    (tmp_path / "folder").mkdir()
    for name, reason in (("notes.txt", "file is not a database"), ("folder", "unable to open")):
        assert main([str(run_dir), "--uri", f"sqlite:///{tmp_path / name}"]) == 1
        assert reason in capsys.readouterr().err


def test_a_database_that_does_not_answer_ends_it_at_once(make_run, capsys, monkeypatch):
    """MLflow itself would try for 102 s."""
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", ())
    connected = []

    class Engine:
        def connect(self):
            raise OperationalError("connect", {}, Exception("connection refused"))

    def create(uri, **settings):
        connected.append(settings["connect_args"])
        return Engine()

    monkeypatch.setattr("visionsweep.tracking.database.create_engine", create)
    _, run_dir = make_run()
    assert main([str(run_dir), "--uri", "postgresql://ada:s3cret@127.0.0.1:9/d"]) == 1
    shown = capsys.readouterr().err
    assert "postgresql://ada:***@127.0.0.1:9/d does not take the record" in shown
    assert "connection refused" in shown
    assert connected == [{"connect_timeout": 5}]
