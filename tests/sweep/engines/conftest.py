"""Engines of the tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.engines import worker_app
from tests.sweep.engines.driver import Driver, slots
from visionsweep.sweep.engines.local.pool import WorkersEngine


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Two workers for the whole test process; every test leaves them free."""
    sweep_dir = tmp_path_factory.mktemp("sweep") / "multirun"
    with WorkersEngine(
        slots(2), **worker_app.sweep(sweep_dir), log_path=sweep_dir / "sweep.log"
    ) as engine:
        yield Driver(engine, sweep_dir)


@pytest.fixture
def make_driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Return a function that starts an engine for one test."""
    engines: list[WorkersEngine] = []

    def make(count: int = 1, task: Any = None, **keywords: Any) -> Driver:
        sweep_dir = tmp_path / "multirun"
        sweep = worker_app.sweep(sweep_dir)
        if task is not None:
            sweep["task_function"] = task
        engines.append(
            WorkersEngine(slots(count), **sweep, log_path=sweep_dir / "sweep.log", **keywords)
        )
        return Driver(engines[-1], sweep_dir)

    yield make
    for engine in engines:
        engine.close()
