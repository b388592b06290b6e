"""The local engine with real processes: deaths, limits, and how it starts and ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.engines.driver import DEADLINE, Driver
from tests.sweep.engines.worker_app import gone, is_alive
from visionsweep.errors import UserError
from visionsweep.sweep.engines.local.resources import Limits

ROOT = Path(__file__).parents[4]

MakeDriver = Callable[..., Driver]


def test_the_death_of_a_worker_costs_one_job(driver: Driver, tmp_path: Path) -> None:
    before = driver.engine.pids
    other = driver.submit("wait", f"file={tmp_path / 'go'}")
    driver.until_started(other)
    key = driver.submit("sleep", f"file={tmp_path / 'pid'}")
    (pid,) = driver.pids_in(tmp_path / "pid")
    os.kill(pid, signal.SIGKILL)
    ended = driver.end(key)
    assert (ended.state, ended.error) == ("lost", "killed by signal 9 (SIGKILL)")
    assert ended.started > 0
    assert driver.run("value", "x=2").value == 4.0  # in the replacement
    assert not driver.ended(other)
    (tmp_path / "go").touch()
    assert driver.end(other).value == "seen"
    assert set(before) - set(driver.engine.pids) == {pid}


def test_a_death_is_noticed_while_a_forked_child_lives(driver: Driver, tmp_path: Path) -> None:
    """The child has a copy of the pipe; it is killed too."""
    key = driver.submit("fork_and_sleep", f"file={tmp_path / 'pids'}")
    pids = driver.pids_in(tmp_path / "pids")
    os.kill(pids[0], signal.SIGKILL)
    assert driver.end(key).state == "lost"
    assert gone(pids)


def test_ctrl_c_does_not_reach_a_worker(driver: Driver, tmp_path: Path) -> None:
    driver.until_ready()  # until our code runs, Python ends at a SIGINT
    keys = [driver.submit("wait", f"file={tmp_path / 'go'}") for _ in range(2)]
    driver.until_started(*keys)
    pids = driver.engine.pids
    for pid in pids:
        assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C goes to the controller's group
        os.killpg(pid, signal.SIGINT)
    (tmp_path / "go").touch()
    assert [driver.end(key).value for key in keys] == ["seen", "seen"]
    assert driver.engine.pids == pids


def test_a_job_may_have_child_processes(driver: Driver) -> None:
    assert driver.run("children").value == [1, 2, 3]


def test_each_slot_has_its_environment(driver: Driver, tmp_path: Path) -> None:
    key = driver.submit("wait", f"file={tmp_path / 'go'}")
    (slot,) = driver.until_started(key)
    ended = driver.run("environment")
    (tmp_path / "go").touch()
    driver.end(key)
    assert ended.value == {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": os.environ.get("MKL_NUM_THREADS"),
        "CUDA_VISIBLE_DEVICES": f"{1 - slot}",
        "threads": 1,
        "cores": 1,
    }
    assert os.environ.get("CUDA_VISIBLE_DEVICES") is None


def test_a_job_gets_a_warm_worker_if_there_is_one(driver: Driver) -> None:
    driver.until_ready()
    first = driver.engine.pids[0]
    os.kill(first, signal.SIGKILL)
    driver.until(lambda: driver.engine.pids[0] != first)  # its replacement still imports
    key = driver.submit("value")
    driver.end(key)
    assert driver.until_started(key) == [1]


# -- limits


def test_a_job_that_takes_too_long_is_killed_with_its_processes(
    make_driver: MakeDriver, tmp_path: Path
) -> None:
    driver = make_driver(limits=Limits(trial_timeout_seconds=100))
    driver.run("value")
    (worker,) = driver.engine._workers
    assert worker.started_clock is not None
    worker.started_clock -= 200  # idle since then, which does not count
    key = driver.submit("busy_with_child", f"file={tmp_path / 'pids'}")
    driver.events += driver.engine.poll(0.0)  # looks at the clock before the job has started
    pids = driver.pids_in(tmp_path / "pids")
    assert not driver.ended(key)
    worker.started_clock -= 200
    ended = driver.end(key)
    error = "not finished after 100 s (hydra.launcher.trial_timeout_seconds)"
    assert (ended.state, ended.error) == ("timed_out", error)
    assert gone(pids)


@pytest.mark.slow
def test_a_job_that_takes_too_much_memory_is_killed(make_driver: MakeDriver) -> None:
    driver = make_driver(limits=Limits(memory_limit="300MB"))
    assert driver.run("value").state == "completed"
    ended = driver.run("allocate", "x=400")
    assert ended.state == "out_of_memory"
    assert ended.error is not None
    assert ended.error.endswith("more than hydra.launcher.memory_limit=300MB")
    assert driver.run("value").state == "completed"


@pytest.mark.slow
def test_a_worker_is_replaced_after_its_number_of_jobs(make_driver: MakeDriver) -> None:
    driver = make_driver(limits=Limits(max_trials_per_worker=2))
    pids = [driver.run("pid").value for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    driver.until(lambda: gone(pids[:4]))


# -- the end


def test_stop_lets_jobs_end_themselves(make_driver: MakeDriver, tmp_path: Path) -> None:
    driver = make_driver()
    running = driver.submit("until_stopped", f"file={tmp_path / 'runs'}")
    driver.until((tmp_path / "runs").exists)
    driver.engine.stop()
    ended = driver.end(running)
    assert (ended.state, ended.error) == ("stopped", "after epoch 2")
    assert driver.engine.num_free == 0


def test_stop_ends_a_job_whose_worker_is_still_starting(make_driver: MakeDriver) -> None:
    driver = make_driver()
    key = driver.submit("value")
    driver.engine.stop()
    ended = driver.end(key)
    assert (ended.state, ended.error) == ("stopped", "stopped before it started")
    assert gone(driver.engine.pids)


def test_close_leaves_no_process(make_driver: MakeDriver, tmp_path: Path) -> None:
    driver = make_driver()
    driver.run("orphan", f"file={tmp_path / 'orphan'}")
    driver.submit("busy_with_child", f"file={tmp_path / 'pids'}")
    found = [pid for name in ("orphan", "pids") for pid in driver.pids_in(tmp_path / name)]
    pids = {*found, *driver.engine.pids}
    assert is_alive(found[0])
    driver.engine.close()
    assert not [pid for pid in pids if is_alive(pid)]  # at once, without waiting
    driver.engine.close()


# -- the start


class RunsWhenUnpickled:
    """A task function that runs code when a worker unpickles it."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __call__(self, cfg: Any) -> float:
        return 1.0

    def __reduce__(self) -> Any:
        return _unpickle, (self.code,)


def _unpickle(code: str) -> Any:
    exec(code)
    return RunsWhenUnpickled(code)


@pytest.mark.parametrize(
    ("code", "seconds", "error"),
    [
        ("import no_such_module", 600, r"\(.*exit code 1\)(.|\n)*No module named 'no_such_module'"),
        ("import time; time.sleep(600)", 0.5, r"\(not ready after 0\.5 s\)"),
    ],
)
def test_a_worker_that_cannot_start_is_an_error_with_its_output(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, code: str, seconds: float, error: str
) -> None:
    monkeypatch.setattr("visionsweep.sweep.engines.local.pool._START_SECONDS", seconds)
    driver = make_driver(task=RunsWhenUnpickled(code))
    driver.submit("value")
    with pytest.raises(UserError, match=f"worker 0 failed to start 2 times {error}"):
        driver.until(lambda: False)


def test_a_worker_that_dies_once_at_its_start_loses_no_job(
    make_driver: MakeDriver, tmp_path: Path
) -> None:
    died = tmp_path / "died"
    code = (
        f"import os\nif not os.path.exists({str(died)!r}):\n"
        f"    open({str(died)!r}, 'w').close(); os._exit(9)"
    )
    assert make_driver(task=RunsWhenUnpickled(code)).run("value").value == 1.0
    assert died.exists()


def test_a_task_function_that_cannot_be_pickled_is_refused(make_driver: MakeDriver) -> None:
    lock = threading.Lock()
    with pytest.raises(UserError, match=r"cannot be sent to a worker .*_thread\.lock"):
        make_driver(task=lambda cfg: lock)


@pytest.mark.slow
def test_an_app_without_a_main_guard_is_refused(tmp_path: Path) -> None:
    """Each worker would import the app, and the app would start workers."""
    app = tmp_path / "app.py"
    app.write_text(
        "import hydra\n@hydra.main(config_path=None)\ndef main(cfg): return 1.0\nmain()\n",
        encoding="utf-8",
    )
    arguments = ["-m", "hydra/launcher=workers", "hydra.launcher.n_jobs=1", "+x=1"]
    done = subprocess.run(
        [sys.executable, str(app), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert "put the call of its main function under `if __name__ == '__main__':`" in done.stderr


# -- the controller dies

_CONTROLLER = """
import os, sys, time
from pathlib import Path
from tests.sweep.engines import worker_app
from tests.sweep.engines.driver import slots
from visionsweep.sweep.engines.engine import Job
from visionsweep.sweep.engines.local.pool import WorkersEngine

if __name__ != "__main__" and {slow_import}:
    time.sleep(600)
if __name__ == "__main__":
    engine = WorkersEngine(slots(1), **worker_app.sweep(Path(sys.argv[1], "multirun")))
    engine.submit(Job("0", 0, ("do=busy_with_child", "file=" + sys.argv[1] + "/pids")))
    Path(sys.argv[1], "worker.new").write_text(str(engine.pids[0]))
    Path(sys.argv[1], "worker.new").rename(sys.argv[1] + "/worker")
    if {forks} and (child := os.fork()) == 0:
        time.sleep(600)
    elif {forks}:
        Path(sys.argv[1], "child").write_text(str(child))
    while True:
        engine.poll(1.0)
"""


@pytest.mark.parametrize(
    "moment",
    [
        "during a computation",
        pytest.param("during the import of the app", marks=pytest.mark.slow),
        pytest.param("while its child keeps the pipe open", marks=pytest.mark.slow),
    ],
)
def test_no_worker_outlives_its_controller(tmp_path: Path, moment: str) -> None:
    is_importing, forks = "import" in moment, "child" in moment
    script = tmp_path / "controller.py"
    script.write_text(_CONTROLLER.format(slow_import=is_importing, forks=forks), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    file, child = tmp_path / ("worker" if is_importing else "pids"), tmp_path / "child"
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment
    ) as controller:
        try:
            deadline = time.monotonic() + DEADLINE
            while not file.exists() or (forks and not child.exists()):
                assert time.monotonic() < deadline
                assert controller.poll() is None
                time.sleep(0.01)
            pids = [int(pid) for pid in file.read_text(encoding="utf-8").split()]
            assert all(is_alive(pid) for pid in pids)
        finally:
            controller.kill()
    try:
        assert gone(pids)
    finally:
        if forks:
            os.kill(int(child.read_text(encoding="utf-8")), signal.SIGKILL)
