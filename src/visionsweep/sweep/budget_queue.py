"""The queue of a sweep with a budget: thaws, and trains the best trial to its end in time.

What it decides depends on how fast trials are, so no two sweeps are equal.
"""

import math
from collections.abc import Collection, Mapping
from itertools import islice

from optuna.trial import TrialState

from visionsweep.sweep.budget import KEY, Budget
from visionsweep.sweep.engines.engine import Ended, Event, Reported, Started
from visionsweep.sweep.job_queue import Jobs, LiveTrial
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.thaw import Curve, Thaw, choose, promise
from visionsweep.sweep.thaw_queue import ThawQueue
from visionsweep.text import counted, duration_text

STORED = "sweep:budget"  # study attribute: what the next command has to know
_MARGIN = 1.1  # finishing begins with so many times the seconds that it is expected to take
_FITS = 1.05  # what is expected to take longer is not begun ...
_LATE = 0.05  # ... unless no trial is complete yet: then this share of the budget may be exceeded,
_DOUBT, _FEW = 0.75, 3  # and with few epochs timed, they may be found to take less
_SMALL = 0.2  # share of the budget for which a trial that is late is not given up
_SAVE_SECONDS = 2.0
_MOST_REPEATS = 20  # configurations drawn in a row that were drawn before: there are no others


class BudgetQueue(ThawQueue):
    """What thawing chooses, as far as it can be finished in time; the best trials in any case."""

    def __init__(
        self,
        study: SweepStudy,
        jobs: Jobs,
        n_trials: int,
        settings: SweepSettings,
        thaw: Thaw,
        budget: Budget,
    ) -> None:
        """See `ThawQueue`."""
        super().__init__(study, jobs, n_trials, settings, thaw)
        self._budget, self._pace = budget, budget.pace
        self._finishing: set[int] = set()  # trained to their end, without another pause
        self._seen: set[tuple[tuple[str, str], ...]] = set()  # configurations
        self._repeats = 0
        self._saved = -math.inf
        self._has_plan = self._is_late = self._was_complete = False

    # -- what comes next

    def pop(self) -> LiveTrial:
        """Return the next trial."""
        known = len(self._study)
        trial = super().pop()
        if trial.number >= known:
            params = self._study.params(trial.number)
            key = tuple(sorted((name, repr(value)) for name, value in params.items()))
            self._repeats = self._repeats + 1 if key in self._seen else 0
            self._seen.add(key)
        return trial

    def _has_queued(self) -> bool:
        if not self._trials or self._budget.seconds_left() <= 0:
            return False
        if not self._pace.is_known:
            return True
        is_urgent = self._urgent(self._curves(), None, None) is not None
        return self._fits(self._trials[0].number) and not is_urgent

    def _may_draw(self) -> bool:
        if not self._is_left_to_draw() or self._budget.seconds_left() <= 0:
            return False
        return not self._pace.is_known or self._fits(None)

    def _is_left_to_draw(self) -> bool:
        return super()._may_draw() and self._repeats < _MOST_REPEATS

    def _choose(self, curves: Mapping[int, Curve], running: int | None) -> int | None:
        if self._budget.seconds_left() <= 0:
            return running if running is not None and running == self._awaited(curves) else None
        if running is not None and running in self._finishing:
            if not self._is_hopeless(running):
                return running
            self._finishing.remove(running)
        waiting = {n: c for n, c in curves.items() if c.is_waiting}
        if not self._pace.is_known:  # a second epoch tells how long one takes
            best = max(waiting, key=lambda n: (waiting[n].values[-1], -n), default=None)
            return best if running is None else running
        begun = [n for n in waiting if n in self._finishing]
        if begun:  # it lost its worker
            return min(begun)
        waiting = {n: c for n, c in waiting.items() if self._fits(n, running)}
        fitting = {n: c for n, c in curves.items() if n in waiting or not c.is_waiting}
        may_draw = self._may_draw()
        usual = choose(fitting, self._thaw, can_draw=may_draw)
        if usual is None and not may_draw and waiting and self._is_left_to_draw():
            usual = max(waiting, key=lambda n: (promise(waiting[n].values, self._thaw), -n))
        urgent = self._urgent(curves, usual, running)
        if urgent is None:
            return usual
        self._finishing.add(urgent)
        return urgent

    def _urgent(
        self, curves: Mapping[int, Curve], usual: int | None, running: int | None
    ) -> int | None:
        """Return a trial that can be finished in time only if it is never paused again.

        As many of the best as there are workers count. ``usual`` is what would be trained instead.
        """
        ranked = sorted(curves, key=lambda number: (-curves[number].values[-1], number))
        unfinished = (
            number
            for number in ranked
            if self._study.trial(number).state == TrialState.RUNNING
            and (not curves[number].is_waiting or self._fits(number, running))
        )
        left = self._budget.seconds_left()
        turn = self._pace.turn_seconds(usual, 0 if usual is None else self._done(usual))
        for number in islice(unfinished, self._budget.num_slots):
            room = left - (0 if number == usual else turn)
            if curves[number].is_waiting and room < _MARGIN * self._needs(number, running):
                return number
        return None

    def _awaited(self, curves: Mapping[int, Curve]) -> int | None:
        """Return the running trial that will be the best one: the sweep ends with its end."""
        states = {number: self._study.trial(number).state for number in curves}
        whole = [c.values[-1] for n, c in curves.items() if states[n] == TrialState.COMPLETE]
        running = [n for n in curves if states[n] == TrialState.RUNNING and n not in self._paused]
        best = max(running, key=lambda n: (curves[n].values[-1], -n), default=None)
        is_better = best is not None and curves[best].values[-1] > max(whole, default=-math.inf)
        return best if is_better and self._pace.is_known else None

    # -- what fits

    def _fits(self, number: int | None, running: int | None = None) -> bool:
        """Return whether a trial can be trained to its end in time; None: a new one."""
        needs, left = self._needs(number, running), self._budget.seconds_left()
        if self._is_any_complete():
            return _FITS * needs <= left
        doubt = _DOUBT if self._pace.num_timed < _FEW else 1.0
        return doubt * needs <= left + _LATE * self._budget.seconds

    def _is_hopeless(self, number: int) -> bool:
        """Return whether a trial that should be the first complete one turns out to be too slow.

        Once it needs no more than a small share of the budget, it is trained to its end anyhow.
        """
        is_early = self._needs(number, number) > _SMALL * self._budget.seconds
        return is_early and not self._is_any_complete() and not self._fits(number, number)

    def _needs(self, number: int | None, running: int | None = None) -> float:
        done = 0 if number is None else self._done(number)
        is_running = number is not None and number == running
        return self._pace.seconds_to_end(number, done, is_running=is_running)

    def _done(self, number: int) -> int:
        """Return how many epochs a trial has trained, in all of its runs."""
        runs = self._study.notes(number).num_runs
        if runs:
            return runs * self._pace.epochs
        return max(self._study.trial(number).intermediate_values, default=0)

    def _is_any_complete(self) -> bool:
        if not self._was_complete:  # asked for every paused trial, each time one is chosen
            states = (trial.state for trial in self._study.trials())
            self._was_complete = TrialState.COMPLETE in states
        return self._was_complete

    # -- the end

    def end(self, running: Collection[int]) -> str | None:
        """Return why the sweep ends, or None. ``running``: the trials that have a worker."""
        if self._budget.clock() - self._saved >= _SAVE_SECONDS:
            self.save()
        left = self._budget.seconds_left()
        if left <= 0:
            awaited = self._awaited(self._curves())
            if awaited is None or awaited not in running:
                return self._reason(left)
            self._say_late(awaited)
            return None
        if running or self.has_next() or not self._lacks_time():
            return None
        return self._reason(left)

    def seconds_left(self) -> float:
        """Return how long the sweep has yet."""
        return max(self._budget.seconds_left(), 0.0)

    def _lacks_time(self) -> bool:
        """Return whether something would be left to do with more time."""
        if not self._pace.is_known:
            return False
        numbers = [*self._paused, *(trial.number for trial in self._trials)]
        if any(not self._fits(number) for number in numbers):
            return True
        return self._is_left_to_draw() and not self._fits(None)

    def _reason(self, left: float) -> str:
        setting = f"{KEY}={self._budget.minutes:g}"
        if self._is_any_complete():
            if left <= 0:
                return f"{setting} is over"
            return f"no other trial can be finished in the {duration_text(left)} left of {setting}"
        if not self._pace.is_known:
            return (
                f"{setting} is over, and no trial is complete; the same command goes on with more "
                "minutes"
            )
        needed = min(map(self._needs, [*self._paused, None]))
        minutes = (self._budget.seconds_used() + _MARGIN * needed) / 60
        return (
            f"{setting}: no trial can be finished in the {duration_text(max(left, 0))} that are "
            f"left; a whole one takes about {duration_text(self._needs(None))} "
            f"({counted(self._pace.num_runs * self._pace.epochs, 'epoch')} of "
            f"{duration_text(self._pace.epoch_seconds())}). Lower {self._settings.epochs_key}, or "
            f"go on with {KEY}={math.ceil(10 * minutes + 1) / 10:g}"
        )

    # -- what is said and stored

    def heard(self, event: Event, trial: LiveTrial) -> None:
        """Learn from an event how long things take."""
        now, number = self._budget.clock(), trial.number
        if isinstance(event, Started):
            self._pace.started(number, now, is_resumed=trial.attempt > 0)
        elif isinstance(event, Reported):
            part, seconds = self._pace.reported(number, event.step, now)
            self._budget.add(number, part, seconds, is_finishing=number in self._finishing)
            self._say_plan()
        elif isinstance(event, Ended):
            self._pace.ended(number, now, event.state)

    def save(self) -> None:
        """Store what was spent, for the next command."""
        self._saved = self._budget.clock()
        self._study.set_attribute(STORED, self._budget.as_plain())

    def _say_plan(self) -> None:
        if self._has_plan or not self._pace.is_known:
            return
        begun = len(self._curves())
        if begun >= self._thaw.screen or (begun and not self._may_draw()):
            self._has_plan = True
            self._budget.say(self._budget.plan(begun, self._thaw))

    def _say_late(self, number: int) -> None:
        if not self._is_late:
            self._is_late = True
            left = self._pace.num_runs * self._pace.epochs - self._done(number)
            self._budget.say(
                f"{KEY}={self._budget.minutes:g} is over, but not the best trial, #{number}: "
                f"it has {counted(left, 'epoch')} left, and is trained to its end"
            )
