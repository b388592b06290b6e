"""Hydra's own launcher interface on the workers: a batch of jobs in, their `JobReturn`s out, in order. No retries."""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from visionsweep.errors import UserError
from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started
from visionsweep.sweep.engines.local.pool import WorkersEngine

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25


def run_batch(
    engine: WorkersEngine, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[JobReturn]:
    """Run the jobs on all slots of the engine (made with `keep_job_returns`); return how each one ended, in order.

    Ctrl-C asks the jobs that run to end; when they have, or after a second one, KeyboardInterrupt is raised, and it is
    for the caller to close the engine. One line is logged at each job's begin and end.
    """
    waiting = [
        Job(str(n), n, tuple(overrides))
        for n, overrides in enumerate(job_overrides, initial_job_idx)
    ]
    batch = _Batch(engine)
    num_jobs = len(waiting)
    with _counting_interrupts() as interrupts:
        while len(batch.returns) < num_jobs:
            while waiting and engine.num_free:
                batch.submit(waiting.pop(0))
            for event in engine.poll(_POLL_SECONDS):
                batch.handle(event)
            if interrupts:
                batch.end(interrupts)
    return [
        batch.returns[str(number)] for number in range(initial_job_idx, initial_job_idx + num_jobs)
    ]


class _Batch:
    def __init__(self, engine: WorkersEngine) -> None:
        self.returns: dict[str, JobReturn] = {}
        self._engine = engine
        self._running: dict[str, Job] = {}

    def submit(self, job: Job) -> None:
        self._running[job.key] = job
        self._engine.submit(job)

    def handle(self, event: Event) -> None:
        if isinstance(event, Started):
            log.info(
                "#%s : %s",
                event.key,
                " ".join(filter_overrides(self._running[event.key].overrides)),
            )
        elif isinstance(event, Reported):
            self._engine.answer(event.key, prune=False)
        else:
            job = self._running.pop(event.key)
            log.info("#%s %s (%.1f s)", event.key, _shown(event), event.ended - event.started)
            self.returns[event.key] = _job_return(event, job)

    def end(self, interrupts: list[float]) -> None:
        """Wait for the jobs that run, unless there is a second Ctrl-C; end the batch."""
        log.info(
            "stopping: %d jobs end at their next checkpoint (Ctrl-C once more: at once)",
            len(self._running),
        )
        self._engine.stop()
        while self._running and len(interrupts) < 2:
            for event in self._engine.poll(_POLL_SECONDS):
                self.handle(event)
        raise KeyboardInterrupt


def _shown(event: Ended) -> str:
    if event.state != "completed":
        return f"{event.state.replace('_', ' ')}: {event.error}" if event.error else event.state
    if isinstance(event.value, float):
        return f"done: {event.value:.6g}"
    return "done" if event.value is None else f"done: {str(event.value)[:80]}"


def _job_return(event: Ended, job: Job) -> JobReturn:
    """Return the job's own; for one whose worker could not tell, a failed one with the reason."""
    if isinstance(event.job_return, JobReturn):
        return event.job_return
    error: Exception = UserError(f"job {event.key} {event.state.replace('_', ' ')}: {event.error}")
    if event.state == "lost":
        error = RuntimeError(f"job {event.key} lost: {event.error}")
    found = JobReturn(overrides=filter_overrides(job.overrides), status=JobStatus.FAILED)
    found.return_value = error
    return found


@contextlib.contextmanager
def _counting_interrupts() -> Iterator[list[float]]:
    """Give a list that each Ctrl-C adds to, so that it cannot tear a message apart; empty in another thread."""
    received: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(time.monotonic())

    previous: Any = None
    is_main_thread = True
    try:
        previous = signal.signal(signal.SIGINT, note)
    except ValueError:
        is_main_thread = False
    try:
        yield received
    finally:
        if is_main_thread:
            signal.signal(signal.SIGINT, previous)
