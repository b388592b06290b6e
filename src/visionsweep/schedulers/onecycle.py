"""One cycle: up to the base lr, then down to almost 0 (Smith and Topin 2018, arXiv 1708.07120)."""

import math

from torch.optim import Optimizer

from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler, warmup_to_updates


class OneCycleScheduler(Scheduler):
    """torch's ``OneCycleLR`` (two cosines, momentum left alone) with the base lr as its ``max_lr``.

    From 1 / div_factor up to 1 at the last update of the warm-up, then down to
    1 / (div_factor * final_div_factor) at the last update of the run. The only difference from
    torch: the warm-up is rounded to whole updates, so that one of them is at the base lr.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        warmup_epochs: float | None = None,
        *,
        total_updates: int,
        updates_per_epoch: int,
    ) -> None:
        """``warmup_epochs``: None is 30 % of the run.

        Raises ConfigError unless both factors are finite and >= 1 and the warm-up leaves an update.
        """
        for key, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not 1 <= value < math.inf:
                raise ConfigError(f"scheduler.{key}: expected a number >= 1, got {value}")
        self.start = 1 / div_factor
        self.end = self.start / final_div_factor
        if warmup_epochs is None:
            self.rise_updates = round(0.3 * total_updates)
        else:
            self.rise_updates = warmup_to_updates(warmup_epochs, total_updates, updates_per_epoch)
        # Not passed on: the base class's warm-up is linear from 0, this one is part of the cycle.
        super().__init__(
            optimizer, total_updates=total_updates, updates_per_epoch=updates_per_epoch
        )

    def factor(self, update: int) -> float:
        """Return the half cosine up to the peak, or down from it."""
        peak = max(self.rise_updates - 1, 0)
        if update < peak:
            return _cosine(self.start, 1.0, update / peak)
        if update == peak:
            return 1.0
        return _cosine(1.0, self.end, (update - peak) / (self.total_updates - 1 - peak))


def _cosine(start: float, end: float, position: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * position)) / 2
