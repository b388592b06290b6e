"""A small sweep, its MLflow page, and a browser."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.lock import lock_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.mlflow_ui import MlflowUi

STUDY = "faces"
# The space is searched as ever, but the first five are given: the fifth learns nothing and is
# pruned. One worker, because which trial a median prunes depends on the order of arrival.
COMMAND = (
    "--multirun",
    f"study={STUDY}",
    "hydra.sweeper.n_trials=6",
    "hydra.launcher.n_jobs=1",
    "trainer.epochs=4",
    "trainer.threads=1",
    "tracking.uri=sqlite:///mlflow.db",
    "optim.lr=tag(log,interval(1e-5,1e-1))",
    "loss=focal,label_smoothing,cross_entropy",
    "optim=adamp,adamw,sgd",
    "hydra/sweeper/pruner=median",
    "hydra.sweeper.pruner.n_startup_trials=4",
    "hydra.sweeper.pruner.n_warmup_steps=0",
    "hydra.sweeper.enqueue=["
    "{optim.lr: 0.003, loss: focal, optim: adamp},"
    "{optim.lr: 0.004, loss: label_smoothing, optim: adamw},"
    "{optim.lr: 0.08, loss: cross_entropy, optim: sgd},"
    "{optim.lr: 0.001, loss: focal, optim: adamw},"
    "{optim.lr: 0.00001, loss: label_smoothing, optim: sgd}]",
)


@dataclass(frozen=True)
class Run:
    """A trial as read from its directory, without MLflow."""

    number: int
    name: str
    state: str
    best_f1: float | None  # best/f1_macro; a pruned trial has none
    losses: list[float]  # train/loss, one per epoch


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: its directory, the MLflow database, its trials by number."""

    directory: Path
    database: Path
    runs: list[Run]
    output: str  # of the command that ran it

    def ranked(self) -> list[Run]:
        """Return the complete trials, the best first."""
        return sorted(
            (run for run in self.runs if run.best_f1 is not None),
            key=lambda run: -(run.best_f1 or 0.0),
        )


def read_run(run_dir: Path) -> Run:
    """Return what a run's journal says at its end."""
    records = read_journal(run_dir)
    values: dict[str, list[float]] = {}
    name = state = ""
    for record in records:
        for key, value in record.get("values", {}).items():
            values.setdefault(key, []).append(value)
        name = record.get("tags", {}).get("mlflow.runName", name)
        state = record.get("state", state)
    return Run(
        int(run_dir.name),
        name,
        state,
        values.get("best/f1_macro", [None])[-1],
        values["train/loss"],
    )


def run_command(directory: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run train.py or sync.py in `directory`, as a user does."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:]],
        cwd=directory,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Sweep:
    """Run the real command, once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "sweep"
    directory.mkdir(exist_ok=True)
    with lock_file(directory / "lock"):
        if not (directory / "done").exists():
            done = run_command(directory, "train.py", *COMMAND)
            (directory / "done").write_text(done.stdout)
    study = directory / "multirun" / STUDY
    runs = [read_run(study / str(number)) for number in range(6)]
    states = [run.state for run in runs]
    assert states.count("finished") >= 4  # and one at least is pruned: both are in the pictures
    assert "pruned" in states
    output = (directory / "done").read_text()
    return Sweep(study, directory / "mlflow.db", runs, output)


@pytest.fixture(scope="session")
def ui(sweep: Sweep) -> "Iterator[MlflowUi]":
    """The MLflow page of the sweep."""
    from tests.browser.mlflow_ui import MlflowUi

    with MlflowUi(sweep.database) as ui:
        yield ui


@pytest.fixture(scope="session")
def children(sweep: Sweep, ui: "MlflowUi") -> dict[int, str]:
    """The MLflow run id of each trial."""
    found: dict[int, str] = {}
    for run in ui.runs("visionsweep"):
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        if "visionsweep.trial" in tags:
            found[int(tags["visionsweep.trial"])] = run["info"]["run_id"]
    assert sorted(found) == [run.number for run in sweep.runs]
    return found


@pytest.fixture(scope="session")
def parent(ui: "MlflowUi") -> dict[str, Any]:
    """The sweep's own run."""
    return next(run for run in ui.runs("visionsweep") if run["info"]["run_name"] == STUDY)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Chromium, for all tests."""
    from tests.browser.mlflow_ui import chromium

    with chromium() as browser:
        yield browser


@dataclass(frozen=True)
class View:
    """A page of its own, and what its console said of errors."""

    page: "Page"
    errors: list[str]


@pytest.fixture
def view(browser: "Browser") -> Iterator[View]:
    """A page with nothing stored from earlier ones."""
    from tests.browser.mlflow_ui import fresh_page

    with fresh_page(browser) as (page, errors):
        yield View(page, errors)


@pytest.fixture
def picture(tmp_path: Path) -> "Callable[[Page, str], None]":
    """Return a function that writes a picture of the page, also into $VISIONSWEEP_PICTURES if set.

    `VISIONSWEEP_PICTURES=docs/pictures pytest -n 0 tests/browser` makes those of the docs.
    """
    from tests.browser.mlflow_ui import take_picture

    def take(page: "Page", name: str) -> None:
        path = tmp_path / f"{name}.png"
        take_picture(page, path)
        wanted = os.environ.get("VISIONSWEEP_PICTURES")
        if wanted:
            Path(wanted).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, wanted)

    return take
