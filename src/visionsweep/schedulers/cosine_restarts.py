"""Cosine decay with warm restarts (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5)."""

import math

from torch.optim import Optimizer

from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler, epochs_to_updates, require_fraction


class CosineRestartsScheduler(Scheduler):
    """From 1 down to min_factor in cycles, each ``restart_mult`` times as long as the one before.

    torch's ``CosineAnnealingWarmRestarts``, counted in updates, after the warm-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        restart_epochs: float,
        restart_mult: int = 1,
        min_factor: float = 0.0,
        warmup_epochs: float = 0.0,
        *,
        total_updates: int,
        updates_per_epoch: int,
    ) -> None:
        """``restart_epochs``: length of the first cycle.

        Raises ConfigError unless restart_epochs > 0, restart_mult >= 1 and 0 <= min_factor <= 1,
        and as the base class does.
        """
        if restart_mult < 1:
            raise ConfigError(
                f"scheduler.restart_mult: expected a whole number >= 1, got {restart_mult}"
            )
        self.min_factor = require_fraction("min_factor", min_factor)
        self.restart_updates = epochs_to_updates(
            "restart_epochs", restart_epochs, updates_per_epoch, at_least=1
        )
        self.restart_mult = restart_mult
        super().__init__(
            optimizer,
            total_updates=total_updates,
            updates_per_epoch=updates_per_epoch,
            warmup_epochs=warmup_epochs,
        )

    def factor(self, update: int) -> float:
        """Return the half cosine at the position within the cycle that holds ``update``."""
        # Subtraction, since a logarithm would round at the very updates where a cycle begins.
        cycle = self.restart_updates
        while update >= cycle:
            update -= cycle
            cycle *= self.restart_mult
        position = update / cycle
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * position)) / 2
