"""The uploader as a process of its own, against a fresh SQLite database."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from visionsweep.rundir.journal import Journal
from visionsweep.tracking.ack import load_ack, num_behind
from visionsweep.tracking.process import start_uploader
from visionsweep.tracking.sync import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def ignore(behind):
    pass


def statuses(uri):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tests")
    found: dict[str, list[str]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        found.setdefault(run.info.run_name, []).append(run.info.status)
    return found


def test_two_uploaders_on_a_fresh_database(make_run, tmp_path):
    uri = f"sqlite:///{tmp_path}/fresh place/mlflow.db"
    uploaders = [start_uploader(tmp_path / name, uri, "tests") for name in ("one", "sweep")]
    make_run("one")
    make_run("sweep/0")
    make_run("sweep/1", state="failed")
    assert [uploader.finish(120, ignore) for uploader in uploaders] == [0, 0]
    assert [uploader.error for uploader in uploaders] == [None, None]
    assert statuses(uri) == {
        "one": ["FINISHED"],
        "sweep": ["FINISHED"],
        "0": ["FINISHED"],
        "1": ["FAILED"],
    }
    assert main([str(tmp_path / "one"), str(tmp_path / "sweep"), "--verify"]) == 0


def test_a_killed_uploader_loses_and_doubles_nothing(make_run, tmp_path, uri):
    journal, run_dir = make_run("cut", state=None)
    for kill_at in (5, 1500):
        uploader = start_uploader(run_dir, uri, "tests")
        for step in range(kill_at, kill_at + 1000):
            journal.metrics(step, {"a": 1.0, "b": float(step)})
        deadline = time.monotonic() + 60
        while load_ack(run_dir, uri).run_id is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(uploader.pid, signal.SIGKILL)
        assert uploader.finish(5, ignore) >= 0
    journal.end("finished")
    assert start_uploader(run_dir, uri, "tests").finish(120, ignore) == 0
    assert main([str(run_dir), "--verify"]) == 0
    assert statuses(uri)["cut"] == ["FINISHED"]


def test_the_uploader_outlives_a_killed_trainer_and_marks_its_run(tmp_path, uri):
    run_dir = tmp_path / "orphan"
    code = """
import os, signal, sys
from pathlib import Path
from visionsweep.rundir.journal import Journal
from visionsweep.tracking.process import start_uploader
uploader = start_uploader(Path(sys.argv[1]), sys.argv[2], "tests")
journal = Journal(Path(sys.argv[1]))
journal.start("orphan", "tests", {}, {})
journal.metrics(1, {"a": 1.0})
print(uploader.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    trainer = subprocess.run(
        [sys.executable, "-c", code, str(run_dir), uri], stdout=subprocess.PIPE, text=True
    )
    uploader_pid = int(trainer.stdout)
    deadline = time.monotonic() + 60
    while load_ack(run_dir, uri).state is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert statuses(uri)["orphan"] == ["KILLED"]
    while _is_running(uploader_pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(uploader_pid)


# The first import of mlflow.pyfunc, and torch.export, warn a lot.
@pytest.mark.filterwarnings("ignore")
def test_an_exported_model_takes_raw_images_of_any_batch_size(make_run, tmp_path, monkeypatch, uri):
    import types

    import mlflow
    import numpy as np
    import torch

    class Predictor(torch.nn.Module):
        image_shape = (3, 8, 6)

        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3 * 8 * 6, 4)
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, images):
            return self.norm(self.linear(images.flatten(1).float() / 255)).softmax(1)

    torch.manual_seed(0)
    predictor = Predictor()
    module = types.SimpleNamespace(load_model=lambda run_dir, device="cpu": predictor)
    monkeypatch.setitem(sys.modules, "visionsweep.training.predictor", module)
    journal, run_dir = make_run("exported", state=None)
    journal.model("checkpoints/best.pt", step=2, register="größe")
    journal.end("finished")
    for _ in range(2):
        assert main([str(run_dir), "--uri", uri, "--verify"]) == 0
        (run_dir / ".mlflow.json").unlink()

    client = mlflow.MlflowClient(uri, registry_uri=uri)
    (version,) = client.search_model_versions("name = 'größe'")  # sent twice, registered once
    champion = client.get_model_version_by_alias("größe", "champion")
    experiment = client.get_experiment_by_name("tests")
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert (champion.version, champion.run_id) == (version.version, model.source_run_id)
    assert [metric.value for metric in model.metrics if metric.key == "val/f1"] == [2 / 3]
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    for batch_size in (1, 2, 5):
        images = np.random.default_rng(0).integers(0, 256, (batch_size, 3, 8, 6), dtype=np.uint8)
        expected = predictor(torch.from_numpy(images)).detach().numpy()
        np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-6)


def test_a_failing_export_is_named_and_holds_up_nothing(
    make_run, tmp_path, monkeypatch, capsys, uri
):
    import types

    def fail(run_dir, device):
        raise RuntimeError("no such weights")

    monkeypatch.setitem(
        sys.modules, "visionsweep.training.predictor", types.SimpleNamespace(load_model=fail)
    )
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", (0.0, 0.0, 0.0))
    journal, run_dir = make_run("failing", state=None)
    journal.model("checkpoints/best.pt")
    journal.end("finished")
    assert main([str(run_dir), "--uri", uri]) == 1
    assert "not sent: model of checkpoints/best.pt: no such weights" in capsys.readouterr().out
    assert statuses(uri)["failing"] == ["FINISHED"]
    assert num_behind(run_dir, uri) == 1  # the next command tries again


def test_a_run_without_an_end_record_is_not_waited_for(tmp_path, uri):
    uploader = start_uploader(tmp_path / "run", uri, "tests")
    journal = Journal(tmp_path / "run")
    journal.start("run", "tests", {}, {})
    started = time.monotonic()
    assert uploader.finish(120, ignore) == 0
    assert time.monotonic() - started < 60
    journal.close()


def _is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
