import os

import pytest

from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import REPORT
from visionsweep.rundir.lock import lock_file
from visionsweep.tracking.ack import load_ack
from visionsweep.tracking.uploader import prepare_environment


@pytest.fixture(scope="package", autouse=True)
def mlflow_environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_DISABLE_TELEMETRY"):
            patch.delenv(name, raising=False)
        prepare_environment()
        yield


@pytest.fixture(autouse=True)
def no_tracking_uri_is_left():
    """The export of a model sets it for the whole process, and for commands of later tests."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def uri(tmp_path_factory, worker_id):
    """One database for the tests of all workers: creating it takes seconds."""
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "store"
    directory.mkdir(exist_ok=True)
    uri = f"sqlite:///{directory}/mlflow.db"
    with lock_file(directory / "lock"):
        from visionsweep.tracking.store import Store

        assert Store(uri).client
    return uri


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def read(client, uri):
    """Return a function: run directory -> its one MLflow run, and the history of each metric."""

    def read(run_dir):
        uid = load_ack(run_dir, uri).uid
        experiment = client.get_experiment_by_name("tests")
        (run,) = client.search_runs([experiment.experiment_id], f"tags.`visionsweep.uid` = '{uid}'")
        history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        return run, {
            key: [(point.step, point.timestamp, point.value) for point in points]
            for key, points in history.items()
        }

    return read


@pytest.fixture
def plain_page(monkeypatch):
    """Replace the drawing of a sweep's page, which takes a second or more."""
    write = lambda place, record: (place / REPORT).write_text(f"page of {record.name}")  # noqa: E731
    monkeypatch.setattr("visionsweep.tracking.parent.write_report", write)


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a run of three epochs; it returns its journal and directory."""
    journals = []

    def make(name="run", state="finished", params=None, epochs=3):
        run_dir = tmp_path / name
        journal = Journal(run_dir)
        journals.append(journal)
        journal.start(
            run_dir.name, "tests", {"optim.lr": 0.001} if params is None else params, {"git": "abc"}
        )
        for epoch in range(1, epochs + 1):
            journal.metrics(
                epoch,
                {"val/loss": 1 / epoch, "val/f1": epoch / 3},
                time_ms=1_700_000_000_000 + epoch,
            )
        (run_dir / "config.yaml").write_text("a: 1\n")
        journal.artifact("config.yaml", "config")
        if state is not None:
            journal.end(state)
        return journal, run_dir

    yield make
    for journal in journals:
        journal.close()
