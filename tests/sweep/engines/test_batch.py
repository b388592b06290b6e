"""`hydra/launcher=workers` as Hydra sees it: Hydra's own published tests for launchers, and what they leave out."""

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
from tests.sweep.engines.local import worker_app
from visionsweep.errors import ConfigError, UserError

ROOT = Path(__file__).parents[3]

Plugins.instance()  # Hydra's tests save and restore its singletons: the plugins must be among them


def test_it_is_discovered() -> None:
    assert "WorkersLauncher" in [
        plugin.__name__ for plugin in Plugins.instance().discover(Launcher)
    ]


def test_its_module_imports_nothing_heavy() -> None:
    """Every start of any Hydra app imports it."""
    code = (
        "import sys; import hydra_plugins.visionsweep_sweep.launcher; "
        "print([m for m in ('torch', 'optuna', 'psutil', 'cloudpickle', 'visionsweep.sweep') if m in sys.modules])"
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


# -- what they leave out


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[WorkersLauncher]:
    made = WorkersLauncher(n_jobs=2)
    made.setup(**worker_app.sweep(tmp_path / "multirun"))
    yield made
    if made._engine is not None:
        made._engine.close()


def values(returns: Any) -> list[Any]:
    assert all(isinstance(found, JobReturn) for found in returns)
    return [found.return_value for found in returns]


def test_returns_come_in_order_and_lines_as_it_happens(
    launcher: WorkersLauncher, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first job waits for the last one's directory: they end in another order than they began."""
    jobs = [
        ["do=wait", f"file={tmp_path}/multirun/4"],
        ["do=value", "x=0.465"],
        ["do=value", "x=3"],
    ]
    assert values(launcher.launch(jobs, initial_job_idx=2)) == ["seen", 0.93, 6.0]
    lines = [
        re.sub(r"^.*\[HYDRA\] |\d+\.\d s", "", line) for line in capfd.readouterr().out.splitlines()
    ]
    assert sorted(lines) == [
        *("#2 : do=wait file=" + f"{tmp_path}/multirun/4", "#2 done: seen ()"),
        *("#3 : do=value x=0.465", "#3 done: 0.93 ()", "#4 : do=value x=3", "#4 done: 6 ()"),
    ]
    assert lines.index("#2 done: seen ()") > lines.index("#3 done: 0.93 ()")
    assert (tmp_path / "multirun/sweep.log").exists()


def test_workers_stay_warm_between_batches(launcher: WorkersLauncher) -> None:
    first = values(launcher.launch([["do=pid"]] * 2, 0))
    assert set(values(launcher.launch([["do=pid"]] * 2, 2))) <= set(first)


def test_an_empty_batch_starts_nothing(launcher: WorkersLauncher) -> None:
    assert launcher.launch([], 0) == []
    assert launcher._engine is None


def test_a_small_batch_starts_as_many_workers_as_it_has_jobs(launcher: WorkersLauncher) -> None:
    values(launcher.launch([["do=pid"]], 0))
    assert launcher._engine is not None
    assert launcher._engine.num_slots == 1
    values(launcher.launch([["do=pid"]] * 3, 1))
    assert launcher._engine.num_slots == 2


def test_a_job_that_fails_raises_its_exception_where_its_value_is_read(
    launcher: WorkersLauncher,
) -> None:
    good, failed, pruned = launcher.launch(
        [["do=value"], ["do=raise", "x=user"], ["do=raise", "x=stopped"]], 0
    )
    assert (good.status, failed.status, pruned.status) == (
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.FAILED,
    )
    with pytest.raises(UserError, match=r"optim\.lr: expected a number") as caught:
        _ = failed.return_value
    assert caught.traceback[-1].name == "do_raise"
    with pytest.raises(Exception, match="after epoch 2"):
        _ = pruned.return_value


@pytest.mark.slow
def test_a_job_without_a_report_of_its_own_raises_the_reason(tmp_path: Path) -> None:
    launcher = WorkersLauncher(n_jobs=1, trial_timeout_seconds=3)
    launcher.setup(**worker_app.sweep(tmp_path / "multirun"))
    lost, timed_out, good = launcher.launch(
        [["do=exit", "x=3"], ["do=sleep", f"file={tmp_path / 'f'}"], ["do=value"]], 5
    )
    with pytest.raises(RuntimeError, match="job 5 lost: its worker ended with exit code 3"):
        _ = lost.return_value
    with pytest.raises(UserError, match=r"job 6 timed out: not finished after 3 s"):
        _ = timed_out.return_value
    assert list(lost.overrides or ()) == ["do=exit", "x=3"]
    assert good.return_value == 2.0


def test_reports_are_answered_though_nothing_prunes(launcher: WorkersLauncher) -> None:
    assert values(launcher.launch([["do=report", "x=[1,2]"]], 0)) == [[False, False]]


def test_workers_end_with_the_launcher(tmp_path: Path) -> None:
    launcher = WorkersLauncher(n_jobs=1)
    launcher.setup(**worker_app.sweep(tmp_path / "multirun"))
    (pid,) = values(launcher.launch([["do=pid"]], 0))
    assert worker_app.is_alive(pid)
    del launcher
    assert not worker_app.is_alive(pid)


def test_a_sweeper_gets_an_engine_of_its_own(launcher: WorkersLauncher, tmp_path: Path) -> None:
    with launcher.create_engine() as engine:
        assert engine.num_slots == 2
    with launcher.create_engine(n_jobs=1, log_path=tmp_path / "logs/sweep.log") as engine:
        assert (engine.num_slots, engine.num_free) == (1, 1)
    assert (tmp_path / "logs/sweep.log").exists()


def test_a_wrong_setting_is_refused_before_a_process_starts(tmp_path: Path) -> None:
    launcher = WorkersLauncher(memory_limit="much")
    launcher.setup(**worker_app.sweep(tmp_path / "multirun"))
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.memory_limit"):
        launcher.launch([["do=value"]], 0)


_APP = """
import sys
import hydra
from tests.sweep.engines.local import worker_app

@hydra.main(config_path=None)
def main(cfg):
    return worker_app.task(cfg)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("do", ["until_stopped", "busy_with_child"])
def test_ctrl_c_ends_the_jobs_and_then_the_sweep(tmp_path: Path, do: str) -> None:
    """Jobs that look at `should_stop` need one Ctrl-C, others a second one."""
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
            wait_for(lambda: "stopping: 2 jobs" in output.read_text(encoding="utf-8"), controller)
            controller.send_signal(signal.SIGINT)
        code = controller.wait(30)
    finally:
        controller.kill()
        controller.wait()
    text = output.read_text(encoding="utf-8")
    assert code == -signal.SIGINT  # which a shell shows as 130
    assert "stopping: 2 jobs end at their next checkpoint" in text
    assert text.count("stopped: after epoch 2") == (2 if do == "until_stopped" else 0)
    assert worker_app.gone([process.pid for process in processes])
    assert not (tmp_path / "never").exists()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
