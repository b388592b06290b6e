"""Jobs in real workers: config, reports, exceptions and output."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweep.engines import worker_app
from tests.sweep.engines.driver import DEADLINE, Driver
from visionsweep.sweep.engines.engine import AttributesSet, Check, Ended, Reported, Started
from visionsweep.sweep.objective import objectives

CHECK = "tests.sweep.engines.worker_app.check"


def test_a_job_starts_returns_its_value_and_frees_its_slot(driver: Driver) -> None:
    before = time.time()
    key = driver.submit("value", "x=21")
    assert driver.engine.num_free == 1
    ended = driver.end(key)
    started = [event for event in driver.events if isinstance(event, Started) and event.key == key]
    assert (ended.state, ended.value, ended.error) == ("completed", 42.0, None)
    assert ended.job_return is None
    assert before <= started[0].time == ended.started <= ended.ended <= time.time()
    assert driver.engine.num_free == driver.engine.num_slots == 2


def test_a_job_is_a_hydra_job(driver: Driver) -> None:
    """It has its number, its id, its attempt, and a directory with Hydra's files."""
    ended = driver.run("job", "x=[1,2]", "+new=a", key="7/seed_0", attempt=2)
    number = driver._count
    config = {"do": "job", "x": [1, 2], "file": None, "new": "a"}
    assert ended.value == (number, "7/seed_0", number, 2, config)
    overrides = driver.log("7/seed_0", ".hydra/overrides.yaml")
    assert overrides == "- do=job\n- x=[1,2]\n- +new=a\n"


def test_a_composed_config_is_used_as_it_is(driver: Driver) -> None:
    """Its overrides differ: nothing is composed again. A large config does not block."""
    sweep = worker_app.sweep(driver.sweep_dir)
    text = "y" * 1_000_000
    config = sweep["hydra_context"].config_loader.load_sweep_config(
        sweep["config"], ["do=job", "x=5"]
    )
    config.file = text
    ended = driver.run("value", config=config, key="composed")
    assert ended.value[1:3] == ("composed", driver._count)
    assert ended.value[4] == {"do": "job", "x": 5, "file": text}


def test_a_check_calls_its_function_and_writes_nothing(driver: Driver) -> None:
    before = driver.log("..", "multirun/sweep.log")
    ended = driver.run("value", check=Check(CHECK))
    value = {"keys": ["do", "file", "x"], "number": driver._count}
    assert (ended.state, ended.value) == ("completed", value)
    assert not (driver.sweep_dir / ended.key).exists()
    # What is printed outside of a job's run goes to the sweep's log.
    after = driver.log("..", "multirun/sweep.log")
    assert after.removeprefix(before) == "from the check\nlogged by it\n"


def test_a_function_for_later_is_only_imported(driver: Driver) -> None:
    before = driver.log("..", "multirun/sweep.log")
    assert driver.run("value", check=Check(CHECK, is_called=False)).value is None
    assert driver.log("..", "multirun/sweep.log") == before
    ended = driver.run("value", check=Check(f"{CHECK}k", "hydra.sweeper.evaluate", is_called=False))
    assert str(ended.error).startswith(f"hydra.sweeper.evaluate={CHECK}k: ")


@pytest.mark.parametrize(
    ("override", "check", "error"),
    [
        ("x=-1", CHECK, "x: expected a positive number"),
        (
            "x=1",
            "os.getcwd",
            "hydra.sweeper.check=os.getcwd: 'os.getcwd' is not in this program's allow-list",
        ),
        ("x=1", f"{CHECK}k", f"hydra.sweeper.check={CHECK}k: "),
        ("y=1", CHECK, "Could not override 'y'"),
        ("y=1", None, "Could not override 'y'"),
    ],
)
def test_bad_overrides_and_checks_fail_with_one_line(
    driver: Driver, override: str, check: str | None, error: str
) -> None:
    ended = driver.run("value", override, check=check and Check(check))
    assert ended.state == "failed"
    assert ended.error is not None
    assert error in ended.error
    assert "\n" not in ended.error
    assert check is not None or ended.traceback is None


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


def test_attributes_arrive_before_the_end(driver: Driver) -> None:
    key = driver.submit("set_attributes")
    driver.end(key)
    events = [event for event in driver.events if event.key == key]
    assert [type(event) for event in events] == [Started, AttributesSet, Ended]
    assert events[1] == AttributesSet(key, {"size": 3})


def test_a_pruned_job_has_not_failed(driver: Driver) -> None:
    ended = driver.run("prune_when_told", prune=True)
    assert (ended.state, ended.error, ended.traceback) == ("pruned", "at epoch 1", None)
    assert "failed" not in driver.log(ended.key)


# -- exceptions


@pytest.mark.parametrize(
    ("x", "state", "error"),
    [
        ("value", "failed", "ValueError: too; long"),
        ("empty", "failed", "ValueError"),
        ("space", "out_of_space", "OSError: [Errno 28] No space left on device"),
        ("quota", "out_of_space", "OSError: [Errno 122] Disk quota exceeded"),
        (
            *("torch", "out_of_space"),
            "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0",
        ),
        ("silent", "failed", "Silent"),
        ("bytes", "failed", r"ValueError: caf\udce9 \x1b[31m"),
        ("user", "failed", "optim.lr: expected a number"),
        ("exit", "failed", "SystemExit: 3"),
        ("unpicklable", "failed", "Unpicklable: 1 and 2"),
        ("memory", "out_of_memory", "MemoryError: no room"),
        ("interrupt", "stopped", None),
        ("stopped", "stopped", "after epoch 2"),
        ("pruned", "pruned", "by optuna"),
    ],
)
def test_an_exception_ends_the_job_but_not_the_worker(
    driver: Driver, x: str, state: str, error: str | None
) -> None:
    pids = driver.engine.pids
    ended = driver.run("raise", f"x={x}")
    assert (ended.state, ended.error) == (state, error)
    assert (ended.traceback is None) == (state in ("stopped", "pruned"))
    # only the user's code
    assert ended.traceback is None or worker_app.__file__ in ended.traceback.splitlines()[1]
    assert driver.run("pid").value in pids
    assert driver.engine.pids == pids


def test_a_value_that_cannot_be_pickled_fails_the_job(driver: Driver) -> None:
    ended = driver.run("return_lock")
    assert (ended.state, ended.value) == ("failed", None)
    assert ended.error is not None
    assert "returned a _thread.lock, which cannot be sent to the controller" in ended.error


def test_a_value_that_is_no_number_reaches_the_controller(driver: Driver) -> None:
    ended = driver.run("return_one_day")
    assert ended.state == "completed"
    values, problem = objectives(ended.value, 1)
    assert values == []
    assert problem is not None
    assert problem.startswith("expected a number from the task function, got <")


# -- the process


def test_a_job_finds_the_process_as_the_first_one_did(
    make_driver: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/somewhere")
    driver = make_driver()
    before = driver.run("state").value
    assert driver.run("vandalize").state == "completed"
    ended = driver.run("state")
    assert ended.value == before
    log = driver.log(ended.key)
    assert "printed" in log
    assert "logged" in log
    assert "UserWarning: only a warning" in log


def test_a_job_has_the_arguments_of_a_single_run(driver: Driver) -> None:
    """Whatever starts further processes of a job passes them on."""
    ended = driver.run("argv", "x=[1,2]", key="8/seed_0")
    arguments = ended.value[1:]
    run_dir = f"hydra.run.dir='{driver.sweep_dir / '8/seed_0'}'"
    assert {"do=argv", "x=[1,2]", run_dir} <= {*arguments}
    assert "--multirun" not in arguments
    assert "hydra.mode=MULTIRUN" not in arguments


def test_a_forked_child_that_returns_is_not_the_job(driver: Driver) -> None:
    assert driver.run("fork_and_return").value == 1.0
    assert driver.run("value", "x=3").value == 6.0


@pytest.mark.parametrize("x", ["failed", "pruned"])
def test_the_objects_of_a_failed_job_are_freed(driver: Driver, x: str) -> None:
    """A traceback would keep the model, and its memory on the GPU."""
    driver.until_ready()  # so that both jobs run in the first worker
    assert driver.run("fail_with_big", f"x={x}").state == x
    assert driver.run("big_is_gone").value is True


# -- output


def test_any_text_can_be_printed(driver: Driver) -> None:
    ended = driver.run("print_any_text")
    assert ended.state == "completed"
    log = (driver.sweep_dir / ended.key / "app.log").read_bytes()
    assert log == b"caf\\udce9\ncaf\xe9\n"


def test_all_output_of_a_job_goes_to_its_log_once(
    driver: Driver, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = driver.run("talk")
    log = driver.log(ended.key)
    sources = ("print", "descriptor 1", "descriptor 2", "C", "logging", "a child")
    assert [log.count(f"from {source}\n") for source in sources] == [1] * len(sources)
    assert "UserWarning: from warnings" in log
    assert "from print" not in driver.log("..", "multirun/sweep.log")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("override", "name"),
    [
        (
            "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/train.log'",
            "train.log",
        ),
        ("hydra/job_logging=stdout", "app.log"),  # a logging without a file
    ],
)
def test_the_log_is_the_file_of_the_job_logging(driver: Driver, override: str, name: str) -> None:
    ended = driver.run("talk", override)
    log = driver.log(ended.key, name)
    assert log.count("from print\n") == log.count("from logging\n") == 1
    files = sorted(path.name for path in (driver.sweep_dir / ended.key).iterdir())
    assert files == [".hydra", name]


def test_output_before_a_crash_is_in_the_log(driver: Driver, tmp_path: Path) -> None:
    ended = driver.run("exit", "x=3")
    assert (ended.state, ended.error) == ("lost", "its worker ended with exit code 3")
    assert "before the end" in driver.log(ended.key)
