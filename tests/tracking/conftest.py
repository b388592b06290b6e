import os

import pytest

from visionsweep.rundir.journal import Journal
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
    """The export of a model sets it for the whole process, and so for the commands that later tests start."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database of the module: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a run of three epochs, and returns its open journal and directory."""
    journals = []

    def make(name="run", state="finished", params=None):
        run_dir = tmp_path / name
        journal = Journal(run_dir)
        journals.append(journal)
        journal.start(
            run_dir.name, "tests", {"optim.lr": 0.001} if params is None else params, {"git": "abc"}
        )
        for epoch in (1, 2, 3):
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
