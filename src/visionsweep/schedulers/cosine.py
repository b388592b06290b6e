"""Cosine decay over the run (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts)."""

import math

from torch.optim import Optimizer

from visionsweep.schedulers.base import Scheduler, require_fraction


class CosineScheduler(Scheduler):
    """From 1 down to min_factor over the updates after the warm-up.

    torch's ``CosineAnnealingLR`` with T_max = these updates: min_factor would be reached one update
    after the last. There torch's lr rises again; ours is held.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        min_factor: float = 0.0,
        warmup_epochs: float = 0.0,
        *,
        total_updates: int,
        updates_per_epoch: int,
    ) -> None:
        """Raises ConfigError unless 0 <= min_factor <= 1, and as the base class does."""
        self.min_factor = require_fraction("min_factor", min_factor)
        super().__init__(
            optimizer,
            total_updates=total_updates,
            updates_per_epoch=updates_per_epoch,
            warmup_epochs=warmup_epochs,
        )

    def factor(self, update: int) -> float:
        """Return the half cosine at update / (updates after the warm-up)."""
        position = update / (self.total_updates - self.warmup_updates)
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * position)) / 2
