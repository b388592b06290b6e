"""The trials that come next, and their jobs: composed ahead while every worker is busy."""

import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from visionsweep.rundir.layout import run_place
from visionsweep.sweep.engines.engine import Event, Job
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.study import SweepStudy

log = logging.getLogger(__name__)


class Jobs(Protocol):
    """Turns a trial's parameters into a job's overrides, and composes them."""

    def overrides(self, number: int, params: Mapping[str, Any], index: int) -> tuple[str, ...]:
        """Return the complete overrides of the job `index` of a trial."""

    def compose(self, overrides: Sequence[str]) -> Any:
        """Return the composed config of a job."""


@dataclass
class LiveTrial:
    """A trial that has not ended: queued, or running one of its jobs."""

    number: int
    attempt: int = 0  # how often it was started before
    overrides: tuple[str, ...] = ()  # of the next job
    config: Any = None  # of the next job, composed ahead
    started: float | None = None  # time.time(), of this job
    epochs: int = 0  # last step that this job reported
    is_paused: bool = False  # was told to end at its checkpoint, for another trial
    is_thawed: bool = False  # goes on after a pause


class JobQueue:
    """Queued trials first, then new ones from the study, up to the total number."""

    def __init__(
        self, study: SweepStudy, jobs: Jobs, n_trials: int, settings: SweepSettings
    ) -> None:
        """Each seed and each fold of a trial is a job of its own, as `settings` say."""
        self._study = study
        self._jobs = jobs
        self._n_trials = n_trials
        self._settings = settings
        self._trials: deque[LiveTrial] = deque()  # stored as running, to be submitted
        self.is_closed = False  # no more trials are drawn

    def append(self, trial: LiveTrial) -> None:
        """Queue a trial as the last one."""
        self._trials.append(trial)

    def appendleft(self, trial: LiveTrial) -> None:
        """Queue a trial as the next one."""
        self._trials.appendleft(trial)

    def draw_all(self) -> None:
        """Draw every trial that is left; those that have run least come first."""
        while self.can_draw():
            self._trials.append(LiveTrial(self._study.ask()))
        runs = self._study.notes
        self._trials = deque(sorted(self._trials, key=lambda t: runs(t.number).num_runs))

    def has_next(self) -> bool:
        """Return whether there is another trial."""
        return bool(self._trials) or self.can_draw()

    def can_draw(self) -> bool:
        """Return whether the study may draw another trial: an enqueued one in any case."""
        is_left = len(self._study) < self._n_trials or self._study.has_enqueued
        return is_left and not self.is_closed

    def pop(self) -> LiveTrial:
        """Return the next trial; draw it unless one is queued."""
        return self._trials.popleft() if self._trials else LiveTrial(self._study.ask())

    def goes_on(self, number: int) -> bool:
        """Return whether a trial that has just reported is trained on; otherwise it is paused."""
        return True

    def paused(self) -> list[int]:
        """Return the trials that wait to be trained on."""
        return []

    def heard(self, event: Event, trial: LiveTrial) -> None:
        """Take note of an event of a running trial."""

    def end(self, running: Collection[int]) -> str | None:
        """Return why the sweep ends now, or None. ``running``: the trials that have a worker."""
        return None

    def seconds_left(self) -> float | None:
        """Return how long the sweep has yet; None if its trials decide that."""
        return None

    def save(self) -> None:
        """Store what the next command has to know, besides the trials."""

    def first(self) -> LiveTrial | None:
        """Return the first queued trial, which stays in the queue."""
        return self._trials[0] if self._trials else None

    def compose_ahead(self, trial: LiveTrial) -> None:
        """Compose the next job of a trial, for `job` to use."""
        trial.overrides = self._overrides(trial)
        trial.config = self._compose(trial.overrides)

    def job(self, trial: LiveTrial) -> Job:
        """Return the next job of a trial."""
        if trial.config is None:
            self.compose_ahead(trial)
        overrides, config = trial.overrides, trial.config or None
        trial.overrides, trial.config = (), None
        return Job(
            run_place(trial.number, *self._settings.seed_and_fold(self._index(trial))),
            trial.number,
            overrides,
            params=self._study.params(trial.number),
            attempt=trial.attempt,
            config=config,
        )

    def _index(self, trial: LiveTrial) -> int:
        return self._study.notes(trial.number).num_runs

    def _overrides(self, trial: LiveTrial) -> tuple[str, ...]:
        params = self._study.params(trial.number)
        return self._jobs.overrides(trial.number, params, self._index(trial))

    def _compose(self, overrides: tuple[str, ...]) -> Any:
        try:
            return self._jobs.compose(overrides)
        except Exception:
            log.debug("cannot compose %s", overrides, exc_info=True)
            return False  # the worker composes it again, and its error becomes the trial's
