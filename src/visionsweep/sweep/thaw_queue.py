"""The queue of a sweep that pauses and thaws trials."""

from collections.abc import Mapping

from optuna.trial import TrialState

from visionsweep.sweep.job_queue import JobQueue, Jobs, LiveTrial
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.thaw import Curve, Thaw, choose, forecasts


class ThawQueue(JobQueue):
    """Trials without an epoch first, then what promises most: a paused trial or a new one."""

    def __init__(
        self, study: SweepStudy, jobs: Jobs, n_trials: int, settings: SweepSettings, thaw: Thaw
    ) -> None:
        """See `JobQueue`."""
        super().__init__(study, jobs, n_trials, settings)
        self._thaw = thaw
        self._sign = 1 if settings.directions[0] == "maximize" else -1
        self._paused: set[int] = set()

    def append(self, trial: LiveTrial) -> None:
        """Queue a trial; one that has reported waits until it promises most."""
        if not self._waits(trial):
            super().append(trial)

    def appendleft(self, trial: LiveTrial) -> None:
        """Queue a trial that lost its worker: as after a pause, what promises most comes first.

        It may have been told to pause when its worker died.
        """
        if not self._waits(trial):
            super().appendleft(trial)

    def _waits(self, trial: LiveTrial) -> bool:
        """Note a trial as paused if it has reported and its first run is not complete."""
        has_reported = bool(self._study.trial(trial.number).intermediate_values)
        is_paused = has_reported and not self._study.notes(trial.number).num_runs
        if is_paused:
            self._paused.add(trial.number)
        return is_paused

    def has_next(self) -> bool:
        """Return whether there is another trial, or one to thaw."""
        return self._has_queued() or self._may_draw() or self._chosen() is not None

    def can_draw(self) -> bool:
        """Return False: what comes next depends on what the running trials report."""
        return False

    def pop(self) -> LiveTrial:
        """Return the next trial: one without an epoch, a paused one, or a new one."""
        if self._has_queued():
            return self._trials.popleft()
        number = self._chosen()
        if number is None:
            return LiveTrial(self._study.ask(self._forecasts()))
        self._paused.remove(number)
        return LiveTrial(number, attempt=1, is_thawed=True)

    def goes_on(self, number: int) -> bool:
        """Return whether a trial that has just reported promises more than all others."""
        return not self._has_queued() and self._chosen(number) == number

    def paused(self) -> list[int]:
        """Return the paused trials."""
        return sorted(self._paused)

    def _chosen(self, running: int | None = None) -> int | None:
        curves = self._curves(running)
        target = self._settings.target_value
        if target is not None:  # what ends the sweep comes first
            reached = [n for n, curve in curves.items() if curve.values[-1] >= self._sign * target]
            waiting = [n for n in reached if curves[n].is_waiting]
            if waiting:
                return min(waiting)
        return self._choose(curves, running)

    def _choose(self, curves: Mapping[int, Curve], running: int | None) -> int | None:
        """Return the trial to thaw, or None; ``running`` has just reported."""
        return choose(curves, self._thaw, can_draw=self._may_draw())

    def _has_queued(self) -> bool:
        return bool(self._trials)

    def _may_draw(self) -> bool:
        return super().can_draw()

    def _curves(self, running: int | None = None) -> dict[int, Curve]:
        """Return the curves of all trials with a report; ``running`` counts as a paused one."""
        waiting = {*self._paused, running}
        curves = {}
        for number, trial in enumerate(self._study.trials()):
            values = trial.intermediate_values
            if values and trial.state != TrialState.FAIL:
                ordered = [self._sign * values[step] for step in sorted(values)]
                curves[number] = Curve(ordered, number in waiting)
        return curves

    def _forecasts(self) -> Mapping[int, float]:
        """Return what the sampler takes for the values of the paused trials."""
        found = forecasts(self._curves())
        return {n: self._sign * found[n] for n in self._paused}
