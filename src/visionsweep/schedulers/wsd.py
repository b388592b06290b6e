"""Warm-up, stable, decay (Hägele et al. 2024, arXiv 2405.18392): the base lr, then a short decay.

Until the decay begins, nothing depends on the length of the run, so early epochs of runs of any
length can be compared.
"""

import math

from torch.optim import Optimizer

from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler, epochs_to_updates, require_fraction


class WSDScheduler(Scheduler):
    """1, then over the last updates down to ``min_factor`` as 1 - sqrt(position), the paper's best.

    As with the cosine, ``min_factor`` would be reached one update after the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay_epochs: float | None = None,
        min_factor: float = 0.0,
        warmup_epochs: float = 0.0,
        *,
        total_updates: int,
        updates_per_epoch: int,
    ) -> None:
        """``decay_epochs``: None is 20 % of the run, as in the paper.

        Raises ConfigError unless 0 <= min_factor <= 1 and warm-up and decay fit into the run.
        """
        self.min_factor = require_fraction("min_factor", min_factor)
        warmup_updates = epochs_to_updates("warmup_epochs", warmup_epochs, updates_per_epoch)
        rest = total_updates - warmup_updates
        if decay_epochs is None:
            self.decay_updates = max(1, min(round(0.2 * total_updates), rest))
        else:
            self.decay_updates = epochs_to_updates(
                "decay_epochs", decay_epochs, updates_per_epoch, at_least=1
            )
            if self.decay_updates > rest > 0:
                raise ConfigError(
                    f"scheduler.decay_epochs: expected at most the run without its warm-up ({rest} "
                    f"updates), got {decay_epochs} ({self.decay_updates} updates); lower it or "
                    "raise trainer.epochs"
                )
        super().__init__(
            optimizer,
            total_updates=total_updates,
            updates_per_epoch=updates_per_epoch,
            warmup_epochs=warmup_epochs,
        )

    def factor(self, update: int) -> float:
        """Return 1, or 1 - sqrt of the position in the decay."""
        start = self.total_updates - self.warmup_updates - self.decay_updates
        if update <= start:
            return 1.0
        position = (update - start) / self.decay_updates
        return self.min_factor + (1 - self.min_factor) * (1 - math.sqrt(position))
