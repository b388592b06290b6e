"""Sweeps in processes of their own: SIGKILL at any moment, Ctrl-C, a second controller."""

import contextlib
import csv
import os
import random
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from tests.sweep.apps import CRASH_APP, CRASH_CONF, App, NoCapture

ROOT = Path(__file__).parents[2]
NUM_TRIALS = 5
SWEEP = (
    "--multirun",
    "hydra/sweeper=optuna_async",
    "hydra.sweep.dir=s",
    f"hydra.sweeper.n_trials={NUM_TRIALS}",
    "hydra.sweeper.sampler.seed=3",
    "hydra.sweeper.sampler.n_startup_trials=2",
    "hydra.sweeper.direction=maximize",
    "hydra.sweeper.retries=99",
    "hydra/sweeper/pruner=median",
    "hydra.sweeper.pruner.n_startup_trials=1",
    "x=interval(0.0,3.0)",
    "y=interval(0.0,1.0)",
)
PATIENCE = 120.0  # seconds, on a machine that does many other things


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    """Return the app, in process; its folder holds the script for real processes."""
    app = App(tmp_path, monkeypatch, capfd)
    app.write("config.yaml", CRASH_CONF)
    (tmp_path / "app.py").write_text(CRASH_APP)
    app.task = runpy.run_path(str(tmp_path / "app.py"))["main"].__wrapped__
    return app


class Command:
    """`python app.py ARGUMENTS` in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._output = (folder / "output.txt").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "app.py", *arguments],
            cwd=folder,
            stdout=self._output,
            stderr=self._output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    @property
    def text(self) -> str:
        return (self.folder / "output.txt").read_text()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._output.close()
        return code

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for something observable; return False where the command ended first."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.text
            time.sleep(0.002)
        return True

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def kill(self, *, controller: bool, workers: bool, dice: random.Random) -> int:
        """SIGKILL some processes at once; return how many jobs may have lost an epoch."""
        found = self.workers()
        victims = found if controller else [dice.choice(found)] if found else []
        pids = [worker.pid for worker in victims] if workers else []
        if controller:
            pids.append(self.process.pid)
            dice.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(victims)


def progress(folder: Path) -> int:
    """Return how many lines the jobs have written."""
    try:
        return (folder / "s" / "progress.log").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def assert_nothing_is_left(folder: Path) -> None:
    """Wait until no process of the sweep is left; they have seconds to notice."""
    deadline = time.monotonic() + 10.0
    while found := [describe(p) for p in psutil.process_iter() if belongs(p, folder)]:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.cwd() == str(folder) or any(
            str(folder) in word for word in process.cmdline()
        )
    except psutil.Error:
        return False


def describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.cmdline()}"
    except psutil.Error:
        return ""


def crash_until_done(
    folder: Path, arguments: tuple[str, ...], dice: random.Random, kills: Counter[str]
) -> int:
    """Repeat the command until it succeeds, killing processes on the way.

    ``kills``: how often at the start, the controller, a worker, everything. Returns how many epochs
    may have been repeated.
    """
    plan = list(kills.elements())
    dice.shuffle(plan)
    losses = 0
    for _ in range(len(plan) + 1):
        command = Command(folder, *arguments)
        lock = folder / "s" / ".lock"
        pid = str(command.process.pid)
        begun = command.until(lambda lock=lock, pid=pid: lock.exists() and lock.read_text() == pid)
        while begun and plan:
            kind = plan[0]
            if kind == "start":
                time.sleep(
                    dice.uniform(0.0, 1.0)
                )  # somewhere between the lock and the first trials
            else:
                target = progress(folder) + dice.randint(1, 12)
                if not command.until(lambda: progress(folder) >= target):  # noqa: B023
                    break
                time.sleep(dice.uniform(0.0, 0.03))
            plan.pop(0)
            losses += command.kill(
                controller=kind != "worker", workers=kind in ("worker", "all"), dice=dice
            )
            if kind != "worker":
                break
        code = command.wait()
        assert code in (0, -signal.SIGKILL), command.text
        if code == 0:
            assert losses > 0, "nothing was killed"
            return losses
    raise AssertionError("the sweep did not end")


def assert_whole(folder: Path, losses: int) -> list[FrozenTrial]:
    """Check a sweep that crashed; return its trials as plain Optuna reads them."""
    assert_nothing_is_left(folder)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 's' / 'study.db'}")
    trials = study.trials
    assert [trial.number for trial in trials] == list(range(NUM_TRIALS))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    directories = {path.name for path in (folder / "s").iterdir() if path.name.isdigit()}
    assert directories == {str(number) for number in range(NUM_TRIALS)}
    repeated = sum(
        repeats(folder / "s" / str(trial.number) / "epochs.log", trial) for trial in trials
    )
    assert repeated <= losses
    with (folder / "s" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["state"], row["params.x"], row["epochs"]) for row in rows] == [
        (str(t.number), t.state.name.lower(), str(t.params["x"]), str(max(t.intermediate_values)))
        for t in trials
    ]
    results = yaml.safe_load((folder / "s" / "optimization_results.yaml").read_text())
    assert results == {
        "name": "optuna",
        "best_params": study.best_params,
        "best_value": study.best_value,
        "best_trial": study.best_trial.number,
    }
    assert (folder / "s" / "best").resolve() == folder / "s" / str(study.best_trial.number)
    assert not list((folder / "s").glob("**/.*.new")), "a half-written link"
    return trials


def repeats(log: Path, trial: FrozenTrial) -> int:
    """Return how many epochs were repeated; check that each was trained from the one before."""
    done = 0
    pids: list[str] = []
    begun: Counter[int] = Counter()
    for line in log.read_text().splitlines():
        word, number, pid, _ = line.split()
        epoch = int(number)
        if word == "begin":
            assert epoch in (done, done + 1), f"{log}: lost more than the epoch in flight"
            assert pid not in pids or pids[-1] == pid
            pids.append(pid)
            done = epoch
        else:
            assert pid == pids[-1], f"{log}: two processes wrote"
            assert epoch == done + 1, f"{log}: {line}"
            begun[epoch] += word == "started"
            done += word == "finished"
    assert sorted(begun) == list(range(1, max(trial.intermediate_values) + 1))
    return begun.total() - len(begun)


def comparable(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """Return what is equal in two equal studies: all but times and the sweep's notes."""
    return [
        (
            t.number,
            t.state,
            t.values,
            t.params,
            t.intermediate_values,
            t.distributions,
            t.system_attrs,
        )
        for t in trials
    ]


def uninterrupted_trials(folder: Path, sweep: tuple[str, ...]) -> list[FrozenTrial]:
    """Run a sweep in this process, with one worker; return its trials."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        app = App(folder, monkeypatch, capfd=NoCapture(), is_quick=True)
        app.write("config.yaml", CRASH_CONF)
        (folder / "app.py").write_text(CRASH_APP)
        app.task = runpy.run_path(str(folder / "app.py"))["main"].__wrapped__
        assert app(*sweep, "seconds=0").code == 0
        return app.study().trials


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """Return the study of an uninterrupted sweep with one worker."""
    trials = uninterrupted_trials(tmp_path_factory.mktemp("whole"), SWEEP)
    assert {trial.state for trial in trials} == {
        TrialState.COMPLETE,
        TrialState.PRUNED,
    }  # or nothing would be shown
    return comparable(trials)


MANY = Counter(start=1, controller=1, worker=2, all=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_with_one_worker_the_study_equals_the_uninterrupted_one(
    app: App, uninterrupted: list[tuple[Any, ...]], seed: int
) -> None:
    arguments = (*SWEEP, "hydra.sweeper.n_jobs=1")
    losses = crash_until_done(app.folder, arguments, random.Random(seed), MANY)
    assert comparable(assert_whole(app.folder, losses)) == uninterrupted


THAW = (
    *(a for a in SWEEP if "pruner" not in a),
    "hydra/sweeper/pruner=thaw",
    "hydra.sweeper.pruner.screen=3",
    "epochs=6",
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_with_one_worker_a_thawing_sweep_decides_as_the_uninterrupted_one(
    app: App, tmp_path: Path, seed: int
) -> None:
    """Four times five kills, at the start, of the controller, of a worker, of both."""
    (tmp_path / "whole").mkdir()
    whole = comparable(uninterrupted_trials(tmp_path / "whole", THAW))
    assert Counter(trial[1] for trial in whole)[TrialState.PRUNED] >= 2  # paused on the way
    losses = crash_until_done(
        app.folder, (*THAW, "hydra.sweeper.n_jobs=1"), random.Random(200 + seed), MANY
    )
    assert losses > 0
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{app.folder / 's' / 'study.db'}")
    assert comparable(study.trials) == whole


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_with_two_workers_nothing_is_lost_and_nothing_twice(app: App, seed: int) -> None:
    arguments = (
        *SWEEP,
        "hydra.sweeper.n_jobs=2",
        "hydra/sweeper/pruner=asha",
        "hydra.sweeper.pruner.reduction_factor=2",
    )
    arguments = tuple(
        a
        for a in arguments
        if a not in ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1")
    )
    losses = crash_until_done(app.folder, arguments, random.Random(100 + seed), MANY)
    assert_whole(app.folder, losses)


LONG = (
    *SWEEP,
    "hydra.sweeper.n_trials=2",
    "hydra/sweeper/pruner=none",
    "epochs=40",
    "seconds=0.5",
    "hydra.sweeper.n_jobs=1",
)


def long_sweep(app: App, *arguments: str) -> Command:
    """Start a sweep whose trials last, and wait until it is amid the first one."""
    wanted = [a for a in LONG if "pruner." not in a and a != f"hydra.sweeper.n_trials={NUM_TRIALS}"]
    command = Command(app.folder, *wanted, *arguments)
    assert command.until(lambda: progress(app.folder) >= 4), command.text
    return command


def assert_resumes(app: App, command: Command) -> None:
    """Check that an interrupted sweep is whole, and that the printed command resumes its trial."""
    assert_nothing_is_left(app.folder)
    assert [trial.state for trial in app.study().trials] == [TrialState.RUNNING]
    last = command.text.splitlines()[-1]
    assert "resume with: python app.py --multirun" in last
    out = app(
        *shlex.split(last.partition("app.py ")[2]),
        "hydra.sweeper.may_change=[obedient,seconds]",
        "seconds=0",
    )
    assert out.code == 0, out.text
    assert [(job.number, job.attempt) for job in app.jobs] == [(0, 1), (1, 0)]
    trials = app.study().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert repeats(app.folder / "s" / "0" / "epochs.log", trials[0]) <= 1


@pytest.mark.slow
def test_a_second_controller_is_refused_and_ctrl_c_ends_the_first(app: App) -> None:
    command = long_sweep(app)
    for dry in ((), ("hydra.sweeper.n_trials=9",)):  # in this process: another one all the same
        text = app(*SWEEP[:3], *dry).error()
        assert text.startswith(f"s is in use by process {command.process.pid} (")
        assert "app.py --multirun" in text
        assert len(text.splitlines()) == 1
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.wait() == 130
    assert "stopping: trials save a checkpoint and end" in command.text
    assert "#0 stopped; it resumes from its checkpoint" in command.text
    assert "interrupted after 1 trial" in command.text
    assert "Traceback" not in command.text
    log = (app.folder / "s" / "0" / "epochs.log").read_text().splitlines()
    assert log[-1].startswith("finished")  # no epoch was lost
    assert_resumes(app, command)


@pytest.mark.slow
def test_sigterm_is_like_ctrl_c(app: App) -> None:
    command = long_sweep(app)
    command.process.terminate()
    assert command.wait() == 130
    assert "interrupted after 1 trial" in command.text
    assert_resumes(app, command)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(app: App) -> None:
    command = long_sweep(app, "obedient=false")
    os.killpg(command.process.pid, signal.SIGINT)
    log = app.folder / "s" / "sweep.log"
    assert command.until(lambda: "stopping" in log.read_text())
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.wait() == 130  # long before the trial's end
    assert "Traceback" not in command.text
    assert_resumes(app, command)


@pytest.mark.slow
def test_ctrl_c_during_the_check_leaves_no_sweep(app: App) -> None:
    (app.folder / "slow_check.py").write_text(
        "import time\n\ndef check(cfg):\n    time.sleep(60)\n"
    )
    command = Command(app.folder, *SWEEP, "hydra.sweeper.check=slow_check.check")
    log = app.folder / "s" / "sweep.log"
    assert command.until(lambda: log.exists() and "checking" in log.read_text())
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.wait() == 130
    assert_nothing_is_left(app.folder)
    assert not (app.folder / "s" / "sweep.yaml").exists()


@pytest.mark.slow
def test_the_app_of_the_documentation_runs_as_printed(tmp_path: Path) -> None:
    """Hydra's default launcher becomes workers."""
    text = (ROOT / "docs" / "sweeping.md").read_text().rpartition("\n## In your own Hydra app\n")[2]
    program, commands = (block.partition("\n")[2] for block in text.split("```")[1:4:2])
    (tmp_path / "app.py").write_text(program)
    [line] = commands.strip().splitlines()
    assert line.startswith("python app.py --multirun hydra/sweeper=optuna_async ")
    command = Command(tmp_path, *shlex.split(line)[2:])
    assert command.wait() == 0, command.text
    [directory] = (tmp_path / "multirun").glob("*/*")
    study = optuna.load_study(
        study_name=directory.name, storage=f"sqlite:///{directory / 'study.db'}"
    )
    assert len(study.trials) == 20
    assert abs(study.best_params["+x"] - 2) < 1.5
    for trial in study.trials:
        x, epochs = trial.params["+x"], max(trial.intermediate_values)
        assert trial.value == pytest.approx(-((x - 2) ** 2) - 1 / epochs)
        # The app does not say how long a trial is, so one may also be pruned at its last epoch.
        assert trial.state != TrialState.COMPLETE or epochs == 10
    assert_nothing_is_left(tmp_path)
    again = command.text.splitlines()[-2].partition("with: python app.py ")[2]
    assert (
        subprocess.run(
            [sys.executable, "app.py", *shlex.split(again)], cwd=tmp_path, check=False
        ).returncode
        == 0
    )
