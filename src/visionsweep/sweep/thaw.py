"""Pause and thaw: the next epoch goes to the trial that promises most, or to a new one.

A trial is begun with one epoch. Whenever it has reported, it is paused if another one promises
more; since runs resume bit for bit, that loses nothing, and a slow starter is never gone for good,
unlike with pruners that stop (freeze-thaw: Swersky et al. 2014, arXiv 1406.3896).

What to train next follows from the values that were reported, and from nothing else. So a sweep
with one worker that was killed decides as if it had not been.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial


class Thaw(BasePruner):
    """The settings; as a pruner of Optuna it never prunes."""

    def __init__(self, screen: int = 8, new_every: int = 3, slope: float = 1.0) -> None:
        """Raises ValueError for values out of range.

        ``screen``: configurations that get an epoch before one of them gets a second. After that
        every ``new_every``-th epoch goes to a new configuration. ``slope``: epochs for which a
        trial is expected to gain as much as in its last one.
        """
        if screen < 1:
            raise ValueError(f"screen: expected at least 1, got {screen}")
        if new_every < 2:
            raise ValueError(f"new_every: expected at least 2, got {new_every}")
        if slope < 0:
            raise ValueError(f"slope: expected 0 or more, got {slope}")
        self.screen, self.new_every, self.slope = screen, new_every, slope

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return False: trials are paused, not pruned."""
        return False


@dataclass(frozen=True)
class Curve:
    """The values that a trial reported, epoch by epoch; larger is better."""

    values: Sequence[float]
    is_waiting: bool  # paused: may be thawed


def choose(curves: Mapping[int, Curve], thaw: Thaw, *, can_draw: bool) -> int | None:
    """Return the trial to thaw; None: begin a new one, if `can_draw`, or end the sweep."""
    if can_draw and _is_turn_of_new(curves, thaw):
        return None
    waiting = [number for number, curve in curves.items() if curve.is_waiting]
    if not waiting:
        return None
    chosen = max(waiting, key=lambda number: (promise(curves[number].values, thaw), -number))
    best = max((c.values[-1] for c in curves.values() if not c.is_waiting), default=None)
    if not can_draw and best is not None and promise(curves[chosen].values, thaw) <= best:
        return None
    return chosen


def _is_turn_of_new(curves: Mapping[int, Curve], thaw: Thaw) -> bool:
    if len(curves) < thaw.screen:
        return True
    epochs = sum(len(curve.values) for curve in curves.values())
    return len(curves) - thaw.screen < (epochs - thaw.screen) // thaw.new_every


def promise(values: Sequence[float], thaw: Thaw) -> float:
    """Return what a trial is expected to reach soon: its value and some epochs of its last gain."""
    if len(values) < 2:
        return values[-1] * (1 + thaw.slope)
    return values[-1] + thaw.slope * (values[-1] - values[-2])


def forecasts(curves: Mapping[int, Curve]) -> dict[int, float]:
    """Return what each trial would reach if it went on as the others did, as the sampler sees it.

    To its value come the median gains of the epochs that it lacks, over all trials that have them.
    Taken as they are, values would say little but how long a trial has trained.
    """
    length = max((len(curve.values) for curve in curves.values()), default=0)
    gains = [
        statistics.median(
            c.values[k] - c.values[k - 1] for c in curves.values() if len(c.values) > k
        )
        for k in range(1, length)
    ]
    return {
        number: curve.values[-1] + math.fsum(gains[len(curve.values) - 1 :])
        for number, curve in curves.items()
    }
