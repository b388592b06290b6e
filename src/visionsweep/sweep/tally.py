"""The trials of a sweep that have ended: counts, the best one, the time that is left."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from visionsweep.sweep.ranking import best
from visionsweep.sweep.trial_record import TrialRecord


class Tally:
    """Kept by the controller, so that no trial is read from the study twice."""

    def __init__(self, directions: Sequence[str]) -> None:
        self.records: dict[int, TrialRecord] = {}
        self.counts: Counter[str] = Counter()
        self.best: TrialRecord | None = None
        self._directions = directions
        self._durations: list[float] = []  # of trials that ended in this session

    def add(self, record: TrialRecord) -> bool:
        """Count a trial that ended; return whether it is the best so far.

        One that was counted already ended again, with another seed.
        """
        before = self.records.get(record.number)
        self.records[record.number] = record
        self.counts[record.state] += 1
        if before is not None:
            self.counts[before.state] -= 1
            self.best = best(self.records.values(), self._directions)
            return self.best is record
        if record.state != "complete":
            return False
        others = [] if self.best is None else [self.best]
        self.best = best([*others, record], self._directions)
        return self.best is record

    def add_duration(self, record: TrialRecord) -> None:
        """Take the time that a trial took until it first ended into account.

        A duplicate took none.
        """
        is_first = record.number not in self.records
        if record.seconds is not None and record.duplicate_of is None and is_first:
            self._durations.append(record.seconds)

    def seconds_left(
        self, n_trials: int, num_slots: int, running_seconds: Iterable[float]
    ) -> float | None:
        """Return an estimate for the rest of the sweep; None before the first trial has ended."""
        if not self._durations:
            return None
        mean = math.fsum(self._durations) / len(self._durations)
        work = mean * (n_trials - len(self.records))
        done = math.fsum(min(seconds, mean) for seconds in running_seconds)
        return max(work - done, 0.0) / num_slots
