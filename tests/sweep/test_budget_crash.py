"""Sweeps with a budget in processes of their own, on a real clock."""

import os
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.sweep.apps import CRASH_APP, CRASH_CONF
from tests.sweep.test_crash import SWEEP, Command
from visionsweep.sweep.budget import spent_before
from visionsweep.sweep.budget_queue import STORED

BUDGET = (
    *(a for a in SWEEP if "pruner" not in a and "n_trials" not in a),
    "hydra.sweeper.epochs_key=epochs",
    "hydra.sweeper.n_jobs=2",
    "epochs=8",
    "seconds=0.3",
)


@pytest.mark.slow
def test_a_sweep_that_was_killed_ends_within_the_budget_of_its_study(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "config.yaml").write_text(CRASH_CONF)
    (tmp_path / "app.py").write_text(CRASH_APP)
    command = Command(tmp_path, *BUDGET, "hydra.sweeper.budget_minutes=0.6")
    log = tmp_path / "s" / "progress.log"
    assert command.until(lambda: log.exists() and log.read_text().count("finished") > 20)
    killed = time.monotonic()
    os.killpg(command.process.pid, signal.SIGKILL)
    command.wait()

    url = f"sqlite:///{tmp_path / 's' / 'study.db'}"
    study = optuna.load_study(study_name="s", storage=url)
    before = spent_before(study.user_attrs[STORED]).seconds
    assert before > 3  # twenty epochs of 0.3 s with two workers

    command = Command(tmp_path, *BUDGET, "hydra.sweeper.budget_minutes=0.6")
    assert command.wait() == 0, command.text
    took = before + time.monotonic() - killed
    study = optuna.load_study(study_name="s", storage=url)
    spent = spent_before(study.user_attrs[STORED]).seconds
    assert 0.8 * 36 < spent < 1.05 * 36, command.text
    assert spent == pytest.approx(took, abs=5)
    reached = {t.number: max(t.intermediate_values.values()) for t in study.trials if t.last_step}
    best = max(reached, key=lambda number: reached[number])
    assert study.trials[best].state == TrialState.COMPLETE, command.text
    assert "minutes used" in command.text
    assert "ended: " in command.text
