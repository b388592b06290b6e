"""The local engine, with real processes: what a job may do, and what may happen to its worker."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.engines.local import worker_app
from tests.sweep.engines.local.worker_app import gone, is_alive
from visionsweep.errors import ConfigError, UserError
from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started
from visionsweep.sweep.engines.local.pool import Limits, WorkersEngine
from visionsweep.sweep.engines.local.process import WorkerTrial
from visionsweep.sweep.engines.local.resources import Slot

ROOT = Path(__file__).parents[4]
DEADLINE = 30.0  # seconds; reached only where a test fails

MakeEngine = Callable[..., WorkersEngine]


def slots(count: int) -> list[Slot]:
    shared = {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "",
    }  # buffered, as it is where nobody sets the latter
    return [Slot(i, 1, {**shared, "CUDA_VISIBLE_DEVICES": f"{i}"}) for i in range(count)]


class Driver:
    """Hands out jobs to an engine and collects what happens to them."""

    def __init__(self, engine: WorkersEngine, sweep_dir: Path) -> None:
        self.engine = engine
        self.sweep_dir = sweep_dir
        self.events: list[Event] = []
        self._count = 0

    def submit(self, do: str, *overrides: str, **fields: Any) -> str:
        """Submit a job; return its key."""
        self._count += 1
        key = fields.pop("key", f"j{self._count}")
        self.engine.submit(Job(key, self._count, (f"do={do}", *overrides), **fields))
        return key

    def until(self, condition: Callable[[], Any], prune: bool = False) -> None:
        """Poll, and answer every report, until the condition holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, self.events
            for event in self.engine.poll(0.05):
                self.events.append(event)
                if isinstance(event, Reported):
                    self.engine.answer(event.key, prune=prune)

    def ended(self, key: str) -> list[Ended]:
        return [event for event in self.events if isinstance(event, Ended) and event.key == key]

    def end(self, key: str, prune: bool = False) -> Ended:
        """Poll until the job has ended; return how."""
        self.until(lambda: self.ended(key), prune)
        return self.ended(key)[0]

    def run(self, do: str, *overrides: str, prune: bool = False, **fields: Any) -> Ended:
        return self.end(self.submit(do, *overrides, **fields), prune)

    def pids_in(self, file: Path) -> list[int]:
        """Poll until a job wrote process ids into a file; return them."""
        self.until(lambda: file.exists() and file.read_text(encoding="utf-8"))
        return [int(pid) for pid in file.read_text(encoding="utf-8").split()]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Two workers for the whole module; every test leaves them free."""
    sweep_dir = tmp_path_factory.mktemp("sweep") / "multirun"
    with WorkersEngine(
        slots(2), **worker_app.sweep(sweep_dir), log_path=sweep_dir / "sweep.log"
    ) as engine:
        yield Driver(engine, sweep_dir)


@pytest.fixture
def make_driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Return a function that starts an engine of its own, for one test."""
    engines: list[WorkersEngine] = []

    def make(
        count: int = 1, overrides: tuple[str, ...] = (), task: Any = None, **keywords: Any
    ) -> Driver:
        sweep_dir = tmp_path / "multirun"
        sweep = worker_app.sweep(sweep_dir, *overrides)
        if task is not None:
            sweep["task_function"] = task
        keywords = {"log_path": sweep_dir / "sweep.log", **keywords}
        engines.append(WorkersEngine(slots(count), **sweep, **keywords))
        return Driver(engines[-1], sweep_dir)

    yield make
    for engine in engines:
        engine.close()


# -- a job


def test_a_job_starts_returns_its_value_and_frees_its_slot(driver: Driver) -> None:
    before = time.time()
    key = driver.submit("value", "x=21")
    assert driver.engine.num_free == 1
    ended = driver.end(key)
    started = [event for event in driver.events if isinstance(event, Started) and event.key == key]
    assert (ended.state, ended.value, ended.error, ended.job_return) == (
        "completed",
        42.0,
        None,
        None,
    )
    assert before <= started[0].time == ended.started <= ended.ended <= time.time()
    assert driver.engine.num_free == driver.engine.num_slots == 2


def test_a_job_is_a_hydra_job(driver: Driver) -> None:
    """Its number, its id, its attempt, its directory with Hydra's files."""
    ended = driver.run("job", "x=[1,2]", "+new=a", key="7/seed_0", attempt=2)
    number = driver._count
    config = {"do": "job", "x": [1, 2], "file": None, "new": "a"}
    assert ended.value == (number, "7/seed_0", number, 2, config)
    directory = driver.sweep_dir / "7/seed_0"
    assert (directory / ".hydra/overrides.yaml").read_text(
        encoding="utf-8"
    ) == "- do=job\n- x=[1,2]\n- +new=a\n"


def test_a_composed_config_is_taken_as_it_is(driver: Driver) -> None:
    """The overrides say something else: nothing is composed again. A large config does not block."""
    sweep = worker_app.sweep(driver.sweep_dir)
    text = "y" * 1_000_000
    config = sweep["hydra_context"].config_loader.load_sweep_config(
        sweep["config"], ["do=job", "x=5", f"file={text}"]
    )
    ended = driver.run("value", config=config, key="composed")
    assert ended.value[1:3] == ("composed", driver._count)
    assert ended.value[4] == {"do": "job", "x": 5, "file": text}


def test_an_override_that_does_not_fit_fails_the_job_with_hydras_words(driver: Driver) -> None:
    ended = driver.run("value", "learning_rate=1")
    assert (ended.state, ended.traceback) == ("failed", None)
    assert ended.error is not None
    assert "Could not override 'learning_rate'" in ended.error
    assert "\n" not in ended.error


def test_a_check_calls_its_function_and_writes_nothing(driver: Driver) -> None:
    ended = driver.run("value", check="tests.sweep.engines.local.worker_app.check")
    assert (ended.state, ended.value) == (
        "completed",
        {"keys": ["do", "file", "x"], "number": driver._count},
    )
    assert not (driver.sweep_dir / ended.key).exists()


@pytest.mark.parametrize(
    ("override", "check", "error"),
    [
        ("x=-1", "tests.sweep.engines.local.worker_app.check", "x: expected a positive number"),
        ("x=1", "os.getcwd", "hydra.sweeper.check=os.getcwd: "),
        ("x=1", "os.getcwd", "Target 'os.getcwd' is not in the Hydra execution whitelist"),
        (
            "x=1",
            "tests.sweep.engines.local.worker_app.chekc",
            "hydra.sweeper.check=tests.sweep.engines.local.worker_app.chekc: ",
        ),
        ("y=1", "tests.sweep.engines.local.worker_app.check", "Could not override 'y'"),
    ],
)
def test_a_check_that_fails_says_why(driver: Driver, override: str, check: str, error: str) -> None:
    ended = driver.run("value", override, check=check)
    assert ended.state == "failed"
    assert ended.error is not None
    assert error in ended.error


# -- reports


def test_each_report_waits_for_its_own_answer(driver: Driver) -> None:
    key = driver.submit("report", "x=[0.25,1,0.5]")
    answers = iter([False, True, False])
    reports = []
    while not driver.ended(key):
        for event in driver.engine.poll(DEADLINE):
            driver.events.append(event)
            if isinstance(event, Reported):
                reports.append((event.step, event.value))
                assert driver.engine.poll(0.0) == []  # it waits
                driver.engine.answer(key, prune=next(answers))
    assert driver.end(key).value == [False, True, False]
    assert reports == [(1, 0.25), (2, 1.0), (3, 0.5)]


def test_a_pruned_job_is_no_failure(driver: Driver) -> None:
    ended = driver.run("prune_when_told", prune=True)
    assert (ended.state, ended.error, ended.traceback) == ("pruned", "at epoch 1", None)
    assert "failed" not in (driver.sweep_dir / ended.key / "app.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("do", "x", "error"),
    [
        ("report_bad", "none", "TypeError: trial.report: expected a number at step 3, got None"),
        ("report_bad", "text", "TypeError: trial.report: expected a number at step 3, got '0.5'"),
        (
            "report_bad",
            "not_finite",
            "ValueError: trial.report: the objective is nan at step 3; expected a finite number",
        ),
        (
            "report_half_step",
            "1",
            "TypeError: trial.report: expected a whole number as step (the epoch), got 1.5",
        ),
    ],
)
def test_a_report_that_is_no_number_fails_the_job(
    driver: Driver, do: str, x: str, error: str
) -> None:
    assert driver.run(do, f"x={x}").error == error


def test_a_child_process_of_the_job_cannot_report(driver: Driver) -> None:
    """It would mix its bytes into the worker's messages."""
    ended = driver.run("report_from_child")
    assert (ended.state, ended.value) == ("completed", 1)
    assert not [
        event for event in driver.events if isinstance(event, Reported) and event.key == ended.key
    ]


def test_a_late_answer_to_an_earlier_job_is_not_taken() -> None:
    class FakeChannel:
        answers: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()

        def send(self, *message: Any) -> None:
            self.answers.put(("earlier", False))
            self.answers.put(("now", True))

    trial = WorkerTrial(FakeChannel(), Job("now", 0, ()), 1)  # type: ignore[arg-type]
    assert trial.report(0.5, 1) is True


# -- exceptions


@pytest.mark.parametrize(
    ("x", "state", "error"),
    [
        ("value", "failed", "ValueError: too; long"),
        ("user", "failed", "optim.lr: expected a number"),
        ("exit", "failed", "SystemExit: 3"),
        ("unpicklable", "failed", "Unpicklable: 1 and 2"),
        ("memory", "out_of_memory", "MemoryError: no room"),
        ("cuda", "out_of_memory", "OutOfMemoryError: tried to allocate"),
        ("cublas", "out_of_memory", "RuntimeError: CUDA error: out of memory"),
        ("interrupt", "stopped", None),
        ("stopped", "stopped", "after epoch 2"),
        ("pruned", "pruned", "by optuna"),
    ],
)
def test_every_exception_ends_the_job_and_not_the_worker(
    driver: Driver, x: str, state: str, error: str | None
) -> None:
    pids = driver.engine.pids
    ended = driver.run("raise", f"x={x}")
    assert (ended.state, ended.error) == (state, error)
    assert (ended.traceback is None) == (state in ("stopped", "pruned"))
    assert (
        ended.traceback is None or worker_app.__file__ in ended.traceback.splitlines()[1]
    )  # the user's code only
    assert driver.run("pid").value in pids
    assert driver.engine.pids == pids


def test_a_traceback_names_the_file_of_a_function_that_travels_by_value(
    make_driver: Callable[..., Driver],
) -> None:
    def local(cfg: Any) -> None:
        raise ValueError("here")

    ended = make_driver(task=local).run("value")
    assert ended.traceback is not None
    assert f'File "{__file__}"' in ended.traceback
    assert 'raise ValueError("here")' in ended.traceback


def test_a_value_that_cannot_travel_fails_the_job(driver: Driver) -> None:
    ended = driver.run("return_lock")
    assert (ended.state, ended.value) == ("failed", None)
    assert ended.error is not None
    assert ended.error.startswith(
        "the task function returned a _thread.lock, which cannot be sent to the controller"
    )


@pytest.mark.parametrize("x", ["failed", "pruned"])
def test_a_job_that_ended_leaves_none_of_its_objects_behind(
    make_driver: Callable[..., Driver], x: str
) -> None:
    """A traceback would keep the model, and its memory on the GPU."""
    driver = make_driver()
    assert driver.run("fail_with_big", f"x={x}").state == x
    assert driver.run("big_is_gone").value is True


# -- output


def test_all_output_of_a_job_goes_to_its_log_and_once(
    driver: Driver, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = driver.run("talk")
    log = (driver.sweep_dir / ended.key / "app.log").read_text(encoding="utf-8")
    sources = ("print", "descriptor 1", "descriptor 2", "C", "logging", "a child")
    assert [log.count(f"from {source}\n") for source in sources] == [1] * len(sources)
    assert "UserWarning: from warnings" in log
    assert "from print" not in (driver.sweep_dir / "sweep.log").read_text(encoding="utf-8")
    assert capfd.readouterr() == ("", "")


def test_output_between_jobs_goes_to_the_log_of_the_sweep(
    make_driver: Callable[..., Driver],
) -> None:
    driver = make_driver()
    driver.run("talk")
    driver.run("value", check="tests.sweep.engines.local.worker_app.check")
    assert (driver.sweep_dir / "sweep.log").read_text(
        encoding="utf-8"
    ) == "from the check\nlogged by it\n"


def test_the_log_is_the_file_that_the_job_logging_names(make_driver: Callable[..., Driver]) -> None:
    overrides = (
        "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/train.log'",
    )
    driver = make_driver(overrides=overrides)
    ended = driver.run("talk")
    log = (driver.sweep_dir / ended.key / "train.log").read_text(encoding="utf-8")
    assert log.count("from print\n") == log.count("from logging\n") == 1
    assert sorted(path.name for path in (driver.sweep_dir / ended.key).iterdir()) == [
        ".hydra",
        "train.log",
    ]


def test_lines_of_a_logging_without_a_file_are_not_lost(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(overrides=("hydra/job_logging=stdout",))
    ended = driver.run("talk")
    log = (driver.sweep_dir / ended.key / "app.log").read_text(encoding="utf-8")
    assert log.count("from logging\n") == 1


# -- what may happen to a worker


def test_the_death_of_a_worker_touches_one_job(driver: Driver, tmp_path: Path) -> None:
    before = driver.engine.pids
    other = driver.submit("wait", f"file={tmp_path / 'go'}")
    driver.until(
        lambda: any(isinstance(event, Started) and event.key == other for event in driver.events)
    )
    key = driver.submit("sleep", f"file={tmp_path / 'pid'}")
    (pid,) = driver.pids_in(tmp_path / "pid")
    os.kill(pid, signal.SIGKILL)
    ended = driver.end(key)
    assert (ended.state, ended.error) == ("lost", "killed by signal 9 (SIGKILL)")
    assert ended.started > 0
    assert "before the end" in (driver.sweep_dir / key / "app.log").read_text(encoding="utf-8")
    assert driver.run("value", "x=2").value == 4.0  # in the replacement
    assert not driver.ended(other)
    (tmp_path / "go").touch()
    assert driver.end(other).value == "seen"
    after = driver.engine.pids
    assert sorted(set(before) - set(after)) == [pid]


def test_a_worker_that_exits_loses_its_job_with_the_code(driver: Driver) -> None:
    ended = driver.run("exit", "x=3")
    assert (ended.state, ended.error) == ("lost", "its worker ended with exit code 3")


def test_a_death_is_noticed_though_a_forked_child_lives_on(driver: Driver, tmp_path: Path) -> None:
    """The child has a copy of the pipe; it is ended too."""
    key = driver.submit("fork_and_sleep", f"file={tmp_path / 'pids'}")
    pids = driver.pids_in(tmp_path / "pids")
    os.kill(pids[0], signal.SIGKILL)
    assert driver.end(key).state == "lost"
    assert gone(pids)


def test_ctrl_c_does_not_reach_a_worker(driver: Driver, tmp_path: Path) -> None:
    keys = {driver.submit("wait", f"file={tmp_path / 'go'}") for _ in range(2)}
    # Both, so that no worker is still starting: Python itself ends at a SIGINT before our code runs.
    driver.until(
        lambda: keys <= {event.key for event in driver.events if isinstance(event, Started)}
    )
    pids = driver.engine.pids
    for pid in pids:
        assert os.getpgid(pid) != os.getpgid(
            0
        )  # the terminal's Ctrl-C goes to the controller's group
        os.killpg(pid, signal.SIGINT)
    (tmp_path / "go").touch()
    assert [driver.end(key).value for key in keys] == ["seen", "seen"]
    assert driver.engine.pids == pids


def test_cancel_ends_a_job_with_its_processes(driver: Driver, tmp_path: Path) -> None:
    key = driver.submit("busy_with_child", f"file={tmp_path / 'pids'}")
    pids = driver.pids_in(tmp_path / "pids")
    driver.engine.cancel(key, "enough")
    ended = driver.end(key)
    assert (ended.state, ended.error) == ("stopped", "enough")
    assert gone(pids)
    assert driver.run("value").state == "completed"


def test_a_job_may_have_child_processes(driver: Driver) -> None:
    assert driver.run("children").value == [1, 2, 3]


def test_each_slot_has_its_environment(driver: Driver, tmp_path: Path) -> None:
    key = driver.submit("wait", f"file={tmp_path / 'go'}")
    driver.until(
        lambda: any(isinstance(event, Started) and event.key == key for event in driver.events)
    )
    taken = next(
        event.slot for event in driver.events if isinstance(event, Started) and event.key == key
    )
    ended = driver.run("environment")
    (tmp_path / "go").touch()
    driver.end(key)
    expected = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": os.environ.get("MKL_NUM_THREADS"),
        "threads": 1,
    }
    assert ended.value == {**expected, "CUDA_VISIBLE_DEVICES": f"{1 - taken}"}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") is None


def test_a_job_that_takes_too_long_is_ended_with_its_processes(
    make_driver: Callable[..., Driver], tmp_path: Path
) -> None:
    driver = make_driver(limits=Limits(trial_timeout_seconds=0.5))
    key = driver.submit("busy_with_child", f"file={tmp_path / 'pids'}")
    pids = driver.pids_in(tmp_path / "pids")
    ended = driver.end(key)
    assert (ended.state, ended.error) == (
        "timed_out",
        "not finished after 0.5 s (hydra.launcher.trial_timeout_seconds)",
    )
    assert ended.ended - ended.started >= 0.5
    assert gone(pids)
    assert driver.run("value").state == "completed"


def test_the_clock_of_a_job_is_its_own(make_driver: Callable[..., Driver]) -> None:
    """A worker may have been idle for longer than a job may take."""
    driver = make_driver(limits=Limits(trial_timeout_seconds=60))
    driver.run("value")
    (worker,) = driver.engine._workers
    assert worker.started_clock is not None
    worker.started_clock -= 100
    key = driver.submit("value")
    driver.events += driver.engine.poll(
        0.0
    )  # looks at the clock before the worker tells that it began
    assert driver.end(key).state == "completed"


def test_a_warm_worker_is_preferred(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(2)
    driver.until(lambda: all(worker.is_ready for worker in driver.engine._workers))
    first = driver.engine.pids[0]
    os.kill(first, signal.SIGKILL)
    driver.until(lambda: driver.engine.pids[0] != first)  # its replacement still imports
    key = driver.submit("value")
    driver.end(key)
    assert [event.slot for event in driver.events if isinstance(event, Started)] == [1]


@pytest.mark.slow
def test_a_job_that_takes_too_much_memory_is_ended(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(limits=Limits(memory_limit="300MB"))
    assert driver.run("value").state == "completed"
    ended = driver.run("allocate", "x=400")
    assert ended.state == "out_of_memory"
    assert ended.error is not None
    assert ended.error.endswith("more than hydra.launcher.memory_limit=300MB")
    assert driver.run("value").state == "completed"


@pytest.mark.slow
def test_a_worker_is_replaced_after_so_many_jobs(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(limits=Limits(max_trials_per_worker=2))
    pids = [driver.run("pid").value for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    driver.until(lambda: gone(pids[:4]))


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (
            {"max_trials_per_worker": 0},
            "hydra.launcher.max_trials_per_worker: expected a whole number from 1 on",
        ),
        (
            {"trial_timeout_seconds": -1},
            "hydra.launcher.trial_timeout_seconds: expected seconds, or null, got -1",
        ),
        ({"memory_limit": "4 apples"}, "hydra.launcher.memory_limit: expected .* got '4 apples'"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Limits(**limits)


# -- ends


def test_stop_lets_a_job_end_itself_and_takes_no_more(
    make_driver: Callable[..., Driver], tmp_path: Path
) -> None:
    driver = make_driver(2)
    running = driver.submit("until_stopped", f"file={tmp_path / 'runs'}")
    driver.until((tmp_path / "runs").exists)
    driver.engine.stop()
    ended = driver.end(running)
    assert (ended.state, ended.error) == ("stopped", "after epoch 2")
    assert driver.engine.num_free == 0


def test_stop_ends_a_job_whose_worker_still_starts(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver()
    key = driver.submit("value")  # the worker imports for some tenths of a second
    driver.engine.stop()
    ended = driver.end(key)
    assert (ended.state, ended.error) == ("stopped", "stopped before it began")
    assert gone(driver.engine.pids)


def test_close_leaves_no_process(make_driver: Callable[..., Driver], tmp_path: Path) -> None:
    driver = make_driver(2)
    driver.submit("busy_with_child", f"file={tmp_path / 'pids'}")
    pids = {*driver.pids_in(tmp_path / "pids"), *driver.engine.pids}
    driver.engine.close()
    assert not [pid for pid in pids if is_alive(pid)]  # at once, without waiting
    driver.engine.close()


# -- the start


class FailsToArrive:
    """A task function that runs code when a worker unpickles it."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __call__(self, cfg: Any) -> float:
        return 1.0

    def __reduce__(self) -> Any:
        return _arrive, (self.code,)


def _arrive(code: str) -> Any:
    exec(code)
    return FailsToArrive(code)


def test_an_app_that_cannot_be_imported_is_an_error_with_its_output(
    make_driver: Callable[..., Driver],
) -> None:
    driver = make_driver(task=FailsToArrive("import no_such_module"))
    driver.submit("value")
    with pytest.raises(
        UserError,
        match=r"(?s)worker 0 ended 2 times while it started .*exit code 1.*no_such_module",
    ):
        driver.until(lambda: False)


def test_a_worker_that_dies_once_while_it_starts_loses_no_job(
    make_driver: Callable[..., Driver], tmp_path: Path
) -> None:
    died = tmp_path / "died"
    code = f"import os\nif not os.path.exists({str(died)!r}):\n    open({str(died)!r}, 'w').close(); os._exit(9)"
    driver = make_driver(task=FailsToArrive(code))
    assert driver.run("value").value == 1.0
    assert died.exists()


def test_a_worker_that_hangs_while_it_starts_is_given_up(
    make_driver: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionsweep.sweep.engines.local.pool._START_SECONDS", 0.5)
    driver = make_driver(task=FailsToArrive("import time; time.sleep(600)"))
    driver.submit("value")
    with pytest.raises(
        UserError, match=r"worker 0 ended 2 times while it started \(not ready after 0\.5 s\)"
    ):
        driver.until(lambda: False)


def test_a_task_function_that_cannot_travel_is_refused(make_driver: Callable[..., Driver]) -> None:
    lock = threading.Lock()
    with pytest.raises(UserError, match=r"cannot be sent to a worker .*_thread\.lock"):
        make_driver(task=lambda cfg: lock)


# -- the controller dies

_CONTROLLER = """
import os, sys, time
from pathlib import Path
from tests.sweep.engines.local import worker_app
from tests.sweep.engines.local.worker_app import gone, is_alive
from tests.sweep.engines.local.test_pool import slots
from visionsweep.sweep.engines.engine import Job
from visionsweep.sweep.engines.local.process import WorkerTrial
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
    "moment", ["amid a computation", "while it imports the app", "its child keeps the pipe open"]
)
def test_no_worker_outlives_its_controller(tmp_path: Path, moment: str) -> None:
    is_importing, forks = (
        moment == "while it imports the app",
        moment == "its child keeps the pipe open",
    )
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


def test_an_app_without_a_main_guard_ends_with_the_reason(tmp_path: Path) -> None:
    """Each worker would import the app, and the app would start workers."""
    app = tmp_path / "app.py"
    app.write_text(
        "import hydra\n@hydra.main(config_path=None)\ndef main(cfg): return 1.0\nmain()\n",
        encoding="utf-8",
    )
    command = [
        sys.executable,
        str(app),
        "-m",
        "hydra/launcher=workers",
        "hydra.launcher.n_jobs=1",
        "+x=1",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 1
    assert "put the call of its main function under `if __name__ == '__main__':`" in done.stderr
