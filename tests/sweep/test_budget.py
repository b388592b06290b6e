"""The settings of a sweep with a budget, and whole sweeps as a user runs them."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.sweep.apps import App
from tests.sweep.records import sweep_settings
from visionsweep.errors import ConfigError
from visionsweep.sweep import command, session
from visionsweep.sweep.budget import Budget, Spent, within_budget
from visionsweep.sweep.trial import TrialStopped, current_trial

THAW = {"_target_": "visionsweep.sweep.thaw.Thaw", "screen": 8, "new_every": 3, "slope": 1.0}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner"}
X = "x=interval(0.0,1.0)"
SWEEP = (X, "hydra.sweeper.direction=maximize", "hydra.sweeper.epochs_key=epochs")


def test_the_pruner_and_the_number_of_trials_of_a_preset_give_way() -> None:
    preset = sweep_settings(budget_minutes=30, pruner=MEDIAN, n_trials=20)
    settings = within_budget(preset, ["hydra/sweeper", "hydra.sweeper.budget_minutes"])
    assert (settings.pruner, settings.n_trials) == (THAW, None)
    assert within_budget(preset, ["hydra.sweeper.n_trials"]).n_trials == 20


def test_thaw_keeps_its_settings() -> None:
    thaw = THAW | {"screen": 3}
    settings = sweep_settings(budget_minutes=30, pruner=thaw)
    assert within_budget(settings, ["hydra/sweeper/pruner"]).pruner == thaw


def test_without_a_budget_nothing_changes() -> None:
    settings = sweep_settings(pruner=MEDIAN, n_trials=20)
    assert within_budget(settings, []) is settings


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"budget_minutes": 0}, "expected minutes above 0, got 0"),
        ({"budget_minutes": -1}, "expected minutes above 0, got -1"),
        ({"budget_minutes": float("nan")}, "expected minutes above 0, got nan"),
        ({"budget_minutes": float("inf")}, "expected minutes above 0, got inf"),
        ({"timeout_seconds": 60}, "remove hydra.sweeper.timeout_seconds"),
        ({"confirm": "multirun/s"}, "a confirmation trains every seed to its end"),
        ({"direction": ["maximize", "minimize"]}, "of one objective, but the sweep has 2"),
        ({"seeds": 3}, "gives its time to one seed per trial, got hydra.sweeper.seeds=3"),
        ({"pruner": MEDIAN}, "cannot use the pruner MedianPruner; remove hydra/sweeper/pruner"),
    ],
)
def test_what_a_budget_cannot_honour_is_refused(keys: dict[str, Any], expected: str) -> None:
    settings = sweep_settings(**{"budget_minutes": 30} | keys)
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.budget_minutes: .*") as error:
        within_budget(settings, ["hydra/sweeper/pruner"])
    assert expected in str(error.value)


def test_the_line_of_what_was_spent_adds_up() -> None:
    line = Spent(seconds=90, slots=180, first=36, on=54, finishing=18).line(1.5, 12)
    assert line == (
        "budget: 1.50 of 1.5 min used. Of the workers' time: first epochs of 12 configurations "
        "20 %, training on 30 %, finishing the best 10 %, start-up, pauses and the rest 40 %"
    )


@pytest.mark.parametrize(("age", "counted"), [(5.0, 5.0), (3600.0, 0.0)])
def test_the_start_of_the_command_counts(
    monkeypatch: pytest.MonkeyPatch, age: float, counted: float
) -> None:
    born = time.time() - age
    monkeypatch.setattr(command.psutil.Process, "create_time", lambda process: born)
    assert time.monotonic() - command._began() == pytest.approx(counted, abs=0.5)


# -- whole sweeps, on a clock that moves with each epoch


class Training:
    """A task that approaches x, an epoch at a time; a paused trial goes on where it was."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = 2.0  # per epoch

    def __call__(self, cfg: DictConfig) -> float:
        file = Path(HydraConfig.get().runtime.output_dir) / "epoch.txt"
        done = int(file.read_text()) if file.exists() else 0
        self.now += 0.5
        if done:
            current_trial().report(cfg.x * done / cfg.epochs, done)
        for epoch in range(done + 1, cfg.epochs + 1):
            self.now += self.seconds
            file.write_text(str(epoch))
            current_trial().report(cfg.x * epoch / cfg.epochs, epoch)
            if epoch < cfg.epochs and current_trial().should_stop():
                raise TrialStopped
        return float(cfg.x)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Training:
    task = Training()

    def make(*args: Any, began: float, **keys: Any) -> Budget:
        return Budget(*args, clock=lambda: task.now, **keys)

    monkeypatch.setattr(session, "Budget", make)
    return task


@pytest.fixture
def app(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    task: Training,
) -> App:
    app = App(tmp_path, monkeypatch, capfd, is_quick=True)
    app.task = task
    return app


def test_a_sweep_ends_in_time_and_goes_on_with_more(app: App, task: Training) -> None:
    out = app.sweep(*SWEEP, "hydra.sweeper.budget_minutes=1")
    assert out.code == 0, out.text
    assert 60 - 8 < task.now <= 63  # a trial takes 6.5
    assert "budget: 1 min; 2 s per epoch, 3 epochs per trial; about " in out.text
    assert " of 1 min used. Of the workers' time: first epochs of " in out.text
    trials = app.study().trials
    assert {trial.state.name for trial in trials} == {"COMPLETE", "RUNNING"}
    best = app.results()["best_trial"]
    assert trials[best].value == max(max(t.intermediate_values.values()) for t in trials)
    stored = yaml.safe_load((app.folder / "s" / "sweep.yaml").read_text())
    assert "hydra.sweeper.budget_minutes=1" in stored["hydra_overrides"]

    out = app.sweep()
    assert out.code == 0, out.text
    assert re.search(r"resuming study s: .* ended, [01]\.\d\d of 1 minutes used", out.text)
    assert app.jobs == []

    out = app.sweep("hydra.sweeper.budget_minutes=1.5")
    assert out.code == 0, out.text
    assert 90 - 8 < task.now <= 95


def test_a_budget_that_is_too_short_is_one_line(app: App, task: Training) -> None:
    out = app.sweep(*SWEEP, "epochs=30", "hydra.sweeper.budget_minutes=0.5")
    assert task.now < 10
    assert out.error().startswith(
        "hydra.sweeper.budget_minutes=0.5: no trial can be finished in the 24.9 s that are left; "
        "a whole one takes about 1 min 00 s (30 epochs of 2.0 s). Lower epochs, or go on with "
        "hydra.sweeper.budget_minutes=1."
    )


def test_epochs_must_be_known(app: App) -> None:
    words = "needs one number of epochs for all trials"
    budget = "hydra.sweeper.budget_minutes=1"
    assert "set hydra.sweeper.epochs_key" in app.sweep(X, budget).error()
    error = app.sweep(*SWEEP, budget, "epochs=2,3").error()
    assert words in error
    assert error.endswith("give epochs a single value")


def test_the_plan_of_a_dry_run_has_no_number_of_trials(app: App) -> None:
    out = app.sweep(*SWEEP, "hydra.sweeper.budget_minutes=30", "hydra.sweeper.dry_run=true")
    assert "30 minutes (hydra.sweeper.budget_minutes)" in out.stdout
    assert "1,000,000,000" not in out.stdout
