"""Cut the lr when the objective no longer improves."""

import math
from typing import Literal

from torch.optim import Optimizer

from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler, require_fraction


class PlateauScheduler(Scheduler):
    """torch's ``ReduceLROnPlateau`` (relative threshold) on the run's objective, per evaluation.

    An evaluation is an improvement if it beats the best by more than ``threshold`` times the size
    of the best (torch multiplies the best itself, which fails below 0); NaN never is. Evaluations
    within the warm-up set the best, but do not count as bad.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_factor: float = 0.0,
        warmup_epochs: float = 0.0,
        *,
        total_updates: int,
        updates_per_epoch: int,
        direction: Literal["maximize", "minimize"],
    ) -> None:
        """``patience``: bad evaluations to allow. ``cooldown``: evaluations to ignore after a cut.

        ``min_factor``: floor of the product of all cuts. Raises ConfigError unless 0 < factor < 1,
        patience and cooldown >= 0, threshold finite and >= 0, 0 <= min_factor <= 1, and as the base
        class does.
        """
        if not 0 < factor < 1:
            raise ConfigError(
                f"scheduler.factor: expected a number in (0, 1), such as 0.1, got {factor}"
            )
        for key, count in (("patience", patience), ("cooldown", cooldown)):
            if count < 0:
                raise ConfigError(f"scheduler.{key}: expected 0 or more evaluations, got {count}")
        if not 0 <= threshold < math.inf:
            raise ConfigError(
                f"scheduler.threshold: expected a number >= 0, such as 1e-4, got {threshold}"
            )
        self.min_factor = require_fraction("min_factor", min_factor)
        self.cut = factor
        self.patience = patience
        self.threshold = threshold
        self.cooldown = cooldown
        self.sign = 1.0 if direction == "maximize" else -1.0
        self.reduction = 1.0
        self.best: float | None = None
        self.num_bad_evaluations = 0
        self.cooldown_left = 0
        super().__init__(
            optimizer,
            total_updates=total_updates,
            updates_per_epoch=updates_per_epoch,
            warmup_epochs=warmup_epochs,
        )

    def factor(self, update: int) -> float:
        """Return the product of the cuts so far."""
        return self.reduction

    def step_evaluation(self, value: float) -> None:
        """Count the evaluation, and cut the next update's lr if too many in a row were bad."""
        if self._is_better(value):
            self.best = value
            self.num_bad_evaluations = 0
        elif self.last_epoch >= self.warmup_updates:
            self.num_bad_evaluations += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.num_bad_evaluations = 0
        if self.num_bad_evaluations > self.patience:
            self.reduction = max(self.reduction * self.cut, self.min_factor)
            self.cooldown_left = self.cooldown
            self.num_bad_evaluations = 0
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.factor_with_warmup(self.last_epoch)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        return self.sign * (value - self.best) > self.threshold * abs(self.best)
