"""Hydra's launcher interface on an engine: jobs in, `JobReturn`s out, in order. No retries."""

import logging
from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from visionsweep.errors import UserError
from visionsweep.rundir.layout import run_place
from visionsweep.signals import stop_requests
from visionsweep.sweep.engines.engine import Ended, Engine, Event, Job, Reported, Started
from visionsweep.text import counted, short_value

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25


def run_batch(
    engine: Engine, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> list[JobReturn]:
    """Run the jobs on all slots of an engine that keeps `JobReturn`s; return these in order.

    Logs one line when a job starts and one when it ends. Ctrl-C or SIGTERM asks the running jobs to
    end. After that, or at the second one, raises KeyboardInterrupt; the caller closes the engine.
    """
    jobs = [
        Job(run_place(number), number, tuple(overrides))
        for number, overrides in enumerate(job_overrides, initial_job_idx)
    ]
    batch = _Batch(engine)
    waiting = list(jobs)
    with stop_requests() as requests:
        while len(batch.returns) < len(jobs):
            while waiting and engine.num_free:
                batch.submit(waiting.pop(0))
            batch.poll()
            if requests:
                batch.stop(requests)
    return [batch.returns[job.key] for job in jobs]


class _Batch:
    def __init__(self, engine: Engine) -> None:
        self.returns: dict[str, JobReturn] = {}
        self._engine = engine
        self._running: dict[str, Job] = {}

    def submit(self, job: Job) -> None:
        self._running[job.key] = job
        self._engine.submit(job)

    def poll(self) -> None:
        for event in self._engine.poll(_POLL_SECONDS):
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Started):
            overrides = filter_overrides(self._running[event.key].overrides)
            log.info("#%s : %s", event.key, " ".join(overrides))
        elif isinstance(event, Reported):
            self._engine.answer(event.key, prune=False)
        elif isinstance(event, Ended):
            job = self._running.pop(event.key)
            log.info("#%s %s (%.1f s)", event.key, _end_text(event), event.ended - event.started)
            self.returns[event.key] = _job_return(event, job)

    def stop(self, requests: list[int]) -> None:
        """Wait for the running jobs, unless there is a second request; end the batch."""
        log.info(
            "stopping: waiting for %s to reach a checkpoint (Ctrl-C again to stop at once)",
            counted(len(self._running), "job"),
        )
        self._engine.stop()
        while self._running and len(requests) < 2:
            self.poll()
        raise KeyboardInterrupt


def _end_text(event: Ended) -> str:
    if event.state != "completed":
        state = event.state.replace("_", " ")
        return f"{state}: {event.error}" if event.error else state
    return "done" if event.value is None else f"done: {short_value(event.value, digits=6)}"


def _job_return(event: Ended, job: Job) -> JobReturn:
    """Return the job's own; if its worker could not send one, a failed one with the reason."""
    if isinstance(event.job_return, JobReturn):
        return event.job_return
    reason = f"job {event.key} {event.state.replace('_', ' ')}: {event.error}"
    found = JobReturn(overrides=filter_overrides(job.overrides), status=JobStatus.FAILED)
    found.return_value = RuntimeError(reason) if event.state == "lost" else UserError(reason)
    return found
