"""Hydra's launcher interface: Hydra's own tests for launchers, and what they leave out."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)

from hydra_plugins.visionsweep_sweep.launcher import WorkersLauncher
from tests.sweep.engines import worker_app
from visionsweep.errors import ConfigError, UserError
from visionsweep.sweep.engines.batch import run_batch
from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started

ROOT = Path(__file__).parents[3]

Plugins.instance()  # Hydra's tests restore its singletons: plugins must be among them


def test_the_launcher_is_discovered() -> None:
    assert "WorkersLauncher" in [
        plugin.__name__ for plugin in Plugins.instance().discover(Launcher)
    ]


def test_the_plugins_import_nothing_heavy() -> None:
    """Every start of any Hydra app imports it."""
    code = (
        "import sys, hydra_plugins.visionsweep_sweep.launcher; "
        "import hydra_plugins.visionsweep_sweep.sweeper; "
        "heavy = ('torch', 'optuna', 'psutil', 'cloudpickle', 'visionsweep.sweep'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("workers", ["hydra.launcher.n_jobs=2"])])
class TestHydrasLauncherSuite(LauncherTestSuite):
    """Published by Hydra for every launcher."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("workers", ["hydra.sweeper.max_batch_size=2"])]
)
class TestHydrasBatchedSweeperSuite(BatchedSweeperTestSuite):
    """Published by Hydra for every launcher."""


@pytest.mark.slow  # eleven apps on the command line
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [
        (
            {
                "defaults": [
                    {"override hydra/launcher": "workers"},
                    {"override hydra/hydra_logging": "hydra_debug"},
                    {"override hydra/job_logging": "disabled"},
                ]
            },
            ["-m", "hydra.launcher.n_jobs=2"],
        )
    ],
)
class TestHydrasIntegrationSuite(IntegrationTestSuite):
    """Published by Hydra for every launcher."""


# -- the batch, on a fake engine


class FakeEngine:
    """Two slots; each poll returns what `polls` yields next for the running jobs."""

    num_slots = num_cores = 2
    threads = 1

    def __init__(self, *polls: Callable[["FakeEngine"], list[Event]]) -> None:
        self.jobs: list[Job] = []
        self.answered: list[tuple[str, bool]] = []
        self.is_stopping = False
        self.num_free = 2
        self._polls = iter(polls)

    def submit(self, job: Job) -> None:
        self.num_free -= 1
        self.jobs.append(job)

    def poll(self, timeout_seconds: float) -> list[Event]:
        events = next(self._polls)(self)
        self.num_free += sum(isinstance(event, Ended) for event in events)
        return events

    def answer(self, key: str, *, prune: bool) -> None:
        self.answered.append((key, prune))

    def stop(self) -> None:
        self.is_stopping = True

    def close(self) -> None:
        raise AssertionError("the caller's")


def interrupt(number: int = signal.SIGINT) -> list[Event]:
    signal.raise_signal(number)
    return []


def test_jobs_are_submitted_as_slots_become_free() -> None:
    returned = JobReturn(status=JobStatus.COMPLETED)
    engine = FakeEngine(
        lambda _: [Started("6", 1, 0.0), Ended("6", "completed", job_return=returned)],
        lambda engine: [Ended("7", "lost", error="killed")] if len(engine.jobs) == 3 else [],
        lambda _: [Reported("5", 1, 0.5), Ended("5", "timed_out", error="not finished")],
    )
    lost_to_time, good, lost = run_batch(engine, [["a=1"], ["a=2"], ["a=3"]], 5)
    assert [(job.key, job.number, job.overrides) for job in engine.jobs] == [
        ("5", 5, ("a=1",)),
        ("6", 6, ("a=2",)),
        ("7", 7, ("a=3",)),
    ]
    assert good is returned
    with pytest.raises(UserError, match=r"^job 5 timed out: not finished$"):
        _ = lost_to_time.return_value
    with pytest.raises(RuntimeError, match=r"^job 7 lost: killed$"):
        _ = lost.return_value
    assert list(lost.overrides or ()) == ["a=3"]
    assert engine.answered == [("5", False)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_waits_for_the_running_jobs(number: int) -> None:
    engine = FakeEngine(
        lambda _: interrupt(number), lambda _: [Ended("0", "stopped")], lambda _: []
    )
    with pytest.raises(KeyboardInterrupt):
        run_batch(engine, [["a=1"]], 0)
    assert engine.is_stopping


def test_a_second_ctrl_c_does_not_wait() -> None:
    engine = FakeEngine(lambda _: interrupt(), lambda _: interrupt())
    with pytest.raises(KeyboardInterrupt):
        run_batch(engine, [["a=1"]], 0)


# -- the launcher, with real workers


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launcher") / "multirun"


@pytest.fixture(scope="module")
def launcher(sweep_dir: Path) -> Iterator[WorkersLauncher]:
    made = WorkersLauncher(n_jobs=2)
    made.setup(**worker_app.sweep(sweep_dir))
    yield made
    if made._engine is not None:
        made._engine.close()


def values(returns: Any) -> list[Any]:
    assert all(isinstance(found, JobReturn) for found in returns)
    return [found.return_value for found in returns]


def test_returns_come_in_order_and_lines_as_it_happens(
    launcher: WorkersLauncher, sweep_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first job waits for the last one's directory, so they end in another order."""
    jobs = [["do=wait", f"file={sweep_dir}/4"], ["do=value", "x=0.465"], ["do=report", "x=[1]"]]
    assert values(launcher.launch(jobs, initial_job_idx=2)) == ["seen", 0.93, [False]]
    output = capfd.readouterr().out.splitlines()
    lines = [re.sub(r"^.*\[HYDRA\] |\d+\.\d s", "", line) for line in output]
    assert sorted(lines) == [
        *(f"#2 : do=wait file={sweep_dir}/4", "#2 done: seen ()"),
        *("#3 : do=value x=0.465", "#3 done: 0.93 ()"),
        *("#4 : do=report x=[1]", "#4 done: [False] ()"),
    ]
    assert lines.index("#2 done: seen ()") > lines.index("#3 done: 0.93 ()")
    assert (sweep_dir / "sweep.log").exists()


def test_reading_the_value_of_a_failed_job_raises_its_exception(launcher: WorkersLauncher) -> None:
    jobs = [["do=value"], ["do=raise", "x=user"], ["do=raise", "x=stopped"]]
    good, failed, stopped = launcher.launch(jobs, 0)
    statuses = (good.status, failed.status, stopped.status)
    assert statuses == (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.FAILED)
    with pytest.raises(UserError, match=r"optim\.lr: expected a number") as caught:
        _ = failed.return_value
    assert caught.traceback[-1].name == "do_raise"
    with pytest.raises(Exception, match="after epoch 2"):
        _ = stopped.return_value


def test_workers_start_as_needed_stay_warm_and_end_with_the_launcher(tmp_path: Path) -> None:
    launcher = WorkersLauncher(n_jobs=2)
    launcher.setup(**worker_app.sweep(tmp_path / "multirun"))
    assert launcher.launch([], 0) == []
    assert launcher._engine is None
    first = values(launcher.launch([["do=pid"]], 0))
    assert launcher._engine is not None
    assert launcher._engine.num_slots == 1
    assert values(launcher.launch([["do=pid"]], 1)) == first
    second = values(launcher.launch([["do=pid"]] * 2, 2))
    assert launcher._engine.num_slots == 2
    del launcher
    assert not any(map(worker_app.is_alive, first + second))


def test_a_sweeper_gets_an_engine_of_its_own(launcher: WorkersLauncher, tmp_path: Path) -> None:
    with launcher.create_engine() as engine:
        assert engine.num_slots == 2
    with launcher.create_engine(n_jobs=1, log_path=tmp_path / "logs/sweep.log") as engine:
        assert (engine.num_slots, engine.num_free) == (1, 1)
    assert (tmp_path / "logs/sweep.log").exists()


def test_a_bad_setting_is_refused_before_a_process_starts(sweep_dir: Path) -> None:
    launcher = WorkersLauncher(memory_limit="much")
    launcher.setup(**worker_app.sweep(sweep_dir))
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.memory_limit"):
        launcher.launch([["do=value"]], 0)


_APP = """
import sys
import hydra
from tests.sweep.engines import worker_app

@hydra.main(config_path=None)
def main(cfg):
    return worker_app.task(cfg)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("do", ["until_stopped", "busy_with_child"])
def test_ctrl_c_ends_the_jobs_and_then_the_sweep(tmp_path: Path, do: str) -> None:
    """Jobs that check `should_stop` need one Ctrl-C, others a second one."""
    app = tmp_path / "app.py"
    app.write_text(_APP, encoding="utf-8")
    files = [tmp_path / "ran-0", tmp_path / "ran-1"]
    command = [
        sys.executable,
        str(app),
        "-m",
        "hydra/launcher=workers",
        "hydra.launcher.n_jobs=2",
        f"+do={do}",
    ]
    command += [
        "+file=" + ",".join([*map(str, files), str(tmp_path / "never")]),
        "hydra.sweep.dir=sweep",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = tmp_path / "output"
    with output.open("wb") as stream:
        controller = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream
        )
    try:
        wait_for(lambda: all(file.exists() for file in files), controller)
        processes = psutil.Process(controller.pid).children(recursive=True)
        controller.send_signal(signal.SIGINT)
        if do == "busy_with_child":
            wait_for(
                lambda: "stopping: waiting for 2 jobs" in output.read_text(encoding="utf-8"),
                controller,
            )
            controller.send_signal(signal.SIGINT)
        code = controller.wait(30)
    finally:
        controller.kill()
        controller.wait()
    text = output.read_text(encoding="utf-8")
    assert code == -signal.SIGINT  # which a shell shows as 130
    assert "stopping: waiting for 2 jobs" in text
    assert text.count("stopped: after epoch 2") == (2 if do == "until_stopped" else 0)
    assert worker_app.gone([process.pid for process in processes])
    assert not (tmp_path / "never").exists()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
