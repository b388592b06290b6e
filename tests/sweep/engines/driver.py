"""An engine of real processes under a test's control."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started
from visionsweep.sweep.engines.local.pool import WorkersEngine
from visionsweep.sweep.engines.local.resources import Slot

DEADLINE = 60.0  # seconds; only a failing test reaches it


def slots(count: int) -> list[Slot]:
    # buffered, as when nobody sets PYTHONUNBUFFERED
    shared = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    return [Slot(i, 1, {**shared, "CUDA_VISIBLE_DEVICES": f"{i}"}) for i in range(count)]


class Driver:
    """Submits jobs to an engine and collects the events."""

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
        """Poll, answering every report, until the condition holds."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, self.events
            for event in self.engine.poll(0.05):
                self.events.append(event)
                if isinstance(event, Reported):
                    self.engine.answer(event.key, prune=prune)

    def until_started(self, *keys: str) -> list[int]:
        """Poll until the jobs have started; return their slots."""

        def found() -> list[int]:
            started = [event for event in self.events if isinstance(event, Started)]
            return [event.slot for key in keys for event in started if event.key == key]

        self.until(lambda: len(found()) == len(keys))
        return found()

    def until_ready(self) -> None:
        """Poll until every worker has imported the app."""
        self.until(lambda: all(worker.is_ready for worker in self.engine._workers))

    def log(self, key: str, name: str = "app.log") -> str:
        """Return a job's log."""
        return (self.sweep_dir / key / name).read_text(encoding="utf-8")

    def ended(self, key: str) -> list[Ended]:
        return [event for event in self.events if isinstance(event, Ended) and event.key == key]

    def end(self, key: str, prune: bool = False) -> Ended:
        """Poll until the job has ended."""
        self.until(lambda: self.ended(key), prune)
        return self.ended(key)[0]

    def run(self, do: str, *overrides: str, prune: bool = False, **fields: Any) -> Ended:
        """Submit a job, and poll until it has ended."""
        return self.end(self.submit(do, *overrides, **fields), prune)

    def pids_in(self, file: Path) -> list[int]:
        """Poll until a job has written process ids to a file; return them."""
        self.until(lambda: file.exists() and file.read_text(encoding="utf-8"))
        return [int(pid) for pid in file.read_text(encoding="utf-8").split()]
