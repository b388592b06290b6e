"""How long the trials of a sweep take, learned from when they start and report."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

Part = Literal["start", "first", "epoch"]

_RECENT = 9  # as many of the last starts, pauses and ends tell what the next one takes


class Pace:
    """Seconds per epoch, of a start, a pause and an end; all times in seconds of one clock.

    What an epoch takes is the level of its trial times what this epoch costs relative to others:
    later ones may cost more (larger images, layers that are no longer frozen), in every trial.
    """

    def __init__(self, epochs: int, num_runs: int = 1) -> None:
        """``epochs`` of each of the ``num_runs`` runs of a trial."""
        self.epochs, self.num_runs = epochs, num_runs
        self._since: dict[int, float] = {}  # of running trials: the last that was heard
        self._next: dict[int, Part] = {}  # what the next report of a running trial ends
        self._firsts: dict[int, float] = {}  # of each trial: its start-up and first epoch
        self._gaps: dict[int, dict[int, float]] = {}  # of each trial: seconds of later epochs
        self._starts: list[float] = []  # until a paused trial has said again what it reached
        self._pauses: list[float] = []  # from the report that was answered with a pause
        self._ends: list[float] = []  # from the last report to the end of the run
        self._levels: dict[int, float] = {}  # of each trial
        self._ratios: dict[int, list[float]] = {}  # of each epoch: its seconds by its trial's level
        self._level = 0.0  # of a usual trial
        self.num_timed = 0  # epochs
        self._until = list(map(float, range(epochs + 1)))  # what all epochs before one cost
        self._new_start = 0.0  # start-up of a new trial

    def learned(self) -> dict[str, Any]:
        """Return what a later command has to know, as JSON; empty if that is nothing yet."""
        if not self.is_known:
            return {}
        return {
            "level": self._level,
            "until": self._until,
            "new_start": self._new_start,
            "starts": [_recent(self._starts)] if self._starts else [],
            "ends": [_recent(self._ends)] if self._ends else [],
        }

    def take_over(self, learned: Mapping[str, Any]) -> None:
        """Expect what an earlier command learned, until this one knows better."""
        if learned and len(learned["until"]) == len(self._until):
            self._level, self._new_start = learned["level"], learned["new_start"]
            self._until = list(learned["until"])
            self._starts, self._ends = list(learned["starts"]), list(learned["ends"])

    def started(self, number: int, now: float, *, is_resumed: bool) -> None:
        """A run of a trial has started; a resumed one first says again what it has reached."""
        self._since[number] = now
        self._next[number] = "start" if is_resumed else "first"

    def reported(self, number: int, step: int, now: float) -> tuple[Part, float]:
        """A trial has reported its epoch ``step``; return what took the seconds since the last."""
        part, seconds = self._next.get(number, "epoch"), now - self._since.get(number, now)
        self._next[number], self._since[number] = "epoch", now
        if part == "start":
            self._starts.append(seconds)
            return part, seconds
        if part == "first":
            self._firsts.setdefault(number, seconds)
        if part == "epoch" or self.epochs == 1:
            self._learn(number, step, seconds)
        if self.is_known:
            recent = list(self._firsts.items())[-_RECENT:]
            starts = [
                max(took - self._levels.get(n, self._level) * self._until[1], 0.0)
                for n, took in recent
            ]
            self._new_start = _recent(starts)
        return part, seconds

    def ended(self, number: int, now: float, state: str) -> None:
        """A run has ended as ``state``, one of the engine's; `stopped` is a pause."""
        seconds = now - self._since.pop(number, now)
        self._next.pop(number, None)
        if state == "completed":
            self._ends.append(seconds)
        elif state == "stopped":
            self._pauses.append(seconds)

    @property
    def is_known(self) -> bool:
        """Whether an epoch has been timed, without the start-up before it."""
        return self._level > 0

    def epoch_seconds(self) -> float:
        """Return the mean seconds per epoch of a usual trial."""
        return self._level * self._until[-1] / self.epochs

    def seconds_to_end(
        self, number: int | None, done: int = 0, *, is_running: bool = False
    ) -> float:
        """Return what a trial needs to its end, after ``done`` epochs; None: a new one."""
        runs, epochs = divmod(done, self.epochs)
        left = self.num_runs - runs
        start = 0.0 if is_running else self._start(done)
        cost = left * self._until[-1] - self._until[epochs]
        return start + self._level_of(number) * cost + left * _recent(self._ends)

    def turn_seconds(self, number: int | None, done: int = 0) -> float:
        """Return what a trial needs for one epoch and a pause; None: a new one, if it is slow."""
        epochs = done % self.epochs
        slowest = max(self._levels.values(), default=self._level)
        level = slowest if number is None else self._level_of(number)
        epoch = level * (self._until[epochs + 1] - self._until[epochs])
        return self._start(done) + epoch + _recent(self._pauses)

    def first_seconds(self, number: int) -> float:
        """Return how long the first epoch of a trial took, without its start-up."""
        return min(self._firsts.get(number, 0.0), self._level_of(number) * self._until[1])

    def _learn(self, number: int, step: int, seconds: float) -> None:
        if number in self._levels:
            self._ratios.setdefault(step, []).append(seconds / max(self._levels[number], 1e-9))
            known = {epoch: statistics.median(found) for epoch, found in self._ratios.items()}
            cost = 1.0  # of an epoch that was not timed: as the last that was
            costs = [cost := known.get(epoch, cost) for epoch in range(1, self.epochs + 1)]
            self._until = list(accumulate(costs, initial=0.0))
        own = self._gaps.setdefault(number, {})
        own[step] = seconds
        self.num_timed += 1
        until = self._until
        self._levels[number] = statistics.median(
            gap / max(until[epoch] - until[epoch - 1], 1e-9) for epoch, gap in own.items()
        )
        self._level = statistics.median(self._levels.values())

    def _start(self, done: int) -> float:
        return _recent(self._starts) if done and self._starts else self._new_start

    def _level_of(self, number: int | None) -> float:
        if number is None or number in self._levels or number not in self._firsts:
            return self._level if number is None else self._levels.get(number, self._level)
        # What its first epoch took longer than that of others may be its start-up, so that one
        # epoch tells of a trial that it is slow, and not that it is fast.
        return max((self._firsts[number] - self._new_start) / self._until[1], self._level)


def _recent(seconds: Sequence[float]) -> float:
    return statistics.median(seconds[-_RECENT:]) if seconds else 0.0
