"""What the terminal shows of an upload, and which run of a sweep is exported as its best."""

import json
import logging

import pytest

from visionsweep.config.schema import TrackingConfig
from visionsweep.errors import ConfigError
from visionsweep.rundir.journal import read_journal
from visionsweep.tracking import lifecycle
from visionsweep.tracking.ack import ensure_ack
from visionsweep.tracking.lifecycle import (
    Upload,
    best_run,
    check_tracking,
    request_best_model,
    store_to_resume,
)

SETTINGS = {
    "enabled": True,
    "uri": "http://me:secret@lab:5000",
    "experiment": "e",
    "wait_seconds": 2.0,
    "register": None,
    "system_metrics": None,
}


class FakeProcess:
    """An uploader that sends nothing."""

    def __init__(self, directory, uri, experiment, wait_seconds, on_connection):
        self.calls = [("start", directory, uri, experiment, wait_seconds)]
        self.on_connection = on_connection
        self.error = "Connection refused"

    def finish(self, wait_seconds, on_progress):
        self.calls.append(("finish", wait_seconds))
        if wait_seconds:
            on_progress(6)
        return 6 if wait_seconds else 0


@pytest.fixture
def start(monkeypatch, caplog):
    """Return a function that starts an upload; it returns it and its process."""
    caplog.set_level(logging.INFO)
    processes = []

    def start_uploader(*arguments):
        processes.append(FakeProcess(*arguments))
        return processes[-1]

    monkeypatch.setattr(lifecycle, "start_uploader", start_uploader)
    return lambda directory: (Upload(directory, TrackingConfig(**SETTINGS)), processes[-1])


def test_what_did_not_arrive_is_counted_with_the_command_that_sends_it(make_run, start, caplog):
    _, run_dir = make_run()
    upload, process = start(run_dir)
    process.on_connection("Connection refused", 5)
    process.on_connection(None, 0)
    upload.finish()
    assert process.calls == [
        ("start", run_dir, SETTINGS["uri"], "e", 2.0),
        ("finish", 2.0),
    ]
    uri = "http://me:***@lab:5000"
    assert caplog.messages == [
        f"MLflow at {uri} does not take the record (Connection refused); training continues, "
        f"5 records behind are safe in {run_dir}",
        "MLflow takes the record again",
        f"the record is safe in {run_dir}; sending the rest to MLflow",
        "MLflow: 6 records behind",
        f"MLflow: 6 records did not arrive at {uri} (Connection refused). Nothing is lost; "
        f"send the rest with: python sync.py {run_dir} --uri {uri}",
        f"compare runs: {uri}",
    ]


def test_without_a_run_nothing_is_waited_for_or_shown(tmp_path, start, caplog):
    upload, process = start(tmp_path)
    upload.finish()
    assert process.calls[1:] == [("finish", 0)]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"register": "m", "enabled": False}, "register needs MLflow"),
        ({"register": "a/b"}, "register: expected a name"),
        ({"system_metrics": 0.05}, "system_metrics: expected at least 0.1 seconds"),
        ({"wait_seconds": -1.0}, "wait_seconds: expected 0 seconds or more, got -1.0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^tracking.{message}"):
        check_tracking(TrackingConfig(**SETTINGS | settings))


def finish_run(run_dir, value, direction="maximize", state="finished"):
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints/best.pt").touch()
    objective = {"metric": "val/f1_macro", "direction": direction}
    (run_dir / "config.yaml").write_text(json.dumps({"objective": objective}))
    result = {"state": state, "objective": objective | {"value": value}, "best_epoch": 3}
    (run_dir / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("values", "direction", "best"),
    [
        ({2: 0.8, 10: 0.8, 3: 0.7}, "maximize", "2"),  # the earlier of two equal ones
        ({0: 0.8, 1: 0.3}, "minimize", "1"),
        ({0: float("nan"), 1: 0.3}, "maximize", "1"),
    ],
)
def test_the_best_trial_of_a_grid_has_the_best_objective(values, direction, best, tmp_path):
    for number, value in values.items():
        finish_run(tmp_path / str(number), value, direction)
    finish_run(tmp_path / "11", 0.5, direction, state="pruned")
    assert best_run(tmp_path) == tmp_path / best


@pytest.mark.parametrize("target", ["5", "5/seed_0"])
def test_the_link_of_the_sweep_leads_to_its_best_run(target, tmp_path):
    finish_run(tmp_path / "0", 0.8)
    finish_run(tmp_path / "5/seed_0", 0.1)
    (tmp_path / "best").symlink_to(target)
    assert best_run(tmp_path) == tmp_path / "5/seed_0"


def test_a_sweep_may_have_no_best_run(tmp_path):
    finish_run(tmp_path / "0", 0.5, state="failed")
    assert best_run(tmp_path) is None
    assert not request_best_model(tmp_path, None)


def requested(run_dir):
    return [(r["step"], r["register"]) for r in read_journal(run_dir) if r["type"] == "model"]


def test_the_best_model_is_requested_once(tmp_path):
    finish_run(tmp_path / "0", 0.5)
    for _ in range(2):
        assert request_best_model(tmp_path, "faces")
        assert requested(tmp_path / "0") == [(3, "faces")]


def test_a_model_without_weights_is_not_requested(tmp_path):
    finish_run(tmp_path / "0", 0.5)
    (tmp_path / "0/checkpoints/best.pt").unlink()
    assert request_best_model(tmp_path, None)
    assert requested(tmp_path / "0") == []


def test_a_resumed_run_or_sweep_uses_the_store_that_it_began_in(make_run, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, run_dir = make_run("s/0")
    assert store_to_resume(run_dir, "http://lab") == "http://lab"  # a new one
    for uri in ("sqlite:////z/mlflow.db", "http://a"):  # synchronized to another one later
        ensure_ack(run_dir, uri)
    for directory in (run_dir, tmp_path / "s"):
        assert store_to_resume(directory, None) == "sqlite:////z/mlflow.db"


def test_a_store_with_a_password_is_asked_for_again(make_run, monkeypatch):
    _, run_dir = make_run()
    uri = "http://bob:secret@lab"
    ensure_ack(run_dir, uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"began in http://bob:\*\*\*@lab.* MLFLOW_TRACKING_URI"):
        store_to_resume(run_dir, None)
    with pytest.raises(ConfigError, match="passwords are not stored"):
        store_to_resume(run_dir, "http://bob:***@lab")  # of a stored sweep
    assert store_to_resume(run_dir, uri) == uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store_to_resume(run_dir, None) is None  # the environment has it
