"""The base of all schedules: the lr as a closed form of the number of optimizer updates.

The unit is the update: an epoch is ``updates_per_epoch`` of them, whatever the accumulation.
Nothing accumulates from update to update, so a resumed run has the same lr to the bit.
"""

import abc
import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from visionsweep.errors import ConfigError, UserError


def epochs_to_updates(key: str, epochs: float, updates_per_epoch: int, *, at_least: int = 0) -> int:
    """Return the duration ``scheduler.<key>`` in updates, rounded.

    Raises ConfigError unless it is finite and >= 0; with ``at_least`` it must be above 0.
    """
    if not 0 <= epochs < math.inf or (epochs == 0 and at_least > 0):
        expected = "above 0" if at_least > 0 else ">= 0"
        raise ConfigError(f"scheduler.{key}: expected a number of epochs {expected}, got {epochs}")
    return max(at_least, round(epochs * updates_per_epoch))


def warmup_to_updates(warmup_epochs: float, total_updates: int, updates_per_epoch: int) -> int:
    """Return the warm-up in updates; raises ConfigError if it leaves no update to the schedule."""
    updates = epochs_to_updates("warmup_epochs", warmup_epochs, updates_per_epoch)
    if updates >= total_updates:
        raise ConfigError(
            f"scheduler.warmup_epochs: expected less than the run ({total_updates} updates), "
            f"got {warmup_epochs} ({updates} updates); lower it or raise trainer.epochs"
        )
    return updates


def require_fraction(key: str, value: float) -> float:
    """Return ``scheduler.<key>``; raises ConfigError unless it lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"scheduler.{key}: expected a number in [0, 1], got {value}")
    return value


class Scheduler(LambdaLR, abc.ABC):
    """torch's ``LambdaLR``: the lr of each parameter group is its base lr times a factor.

    Update u of a warm-up of W updates has the factor (u + 1) / W, so the last one is at the base
    lr; ``factor`` gives the rest. After ``total_updates`` the lr of the last update is held.

    To write your own, derive from this class and implement ``factor``. ``build`` passes those of
    these arguments that your class names, besides the keys of its YAML:

    - ``optimizer``: torch Optimizer, whose groups' lr is the base lr; required.
    - ``total_updates``: int, optimizer updates of the whole run.
    - ``updates_per_epoch``: int, optimizer updates per epoch.
    - ``direction``: "maximize" or "minimize", the direction of the objective.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_updates: int,
        updates_per_epoch: int,
        warmup_epochs: float = 0.0,
    ) -> None:
        """Sets the lr of update 0, so a subclass first sets the attributes that ``factor`` reads.

        Raises ConfigError if the warm-up leaves no update to the schedule.
        """
        self.total_updates = total_updates
        self.warmup_updates = warmup_to_updates(warmup_epochs, total_updates, updates_per_epoch)
        super().__init__(optimizer, self.factor_with_warmup)
        # Keeps torch from warning when the first update is skipped, as the fp16 scaler may do.
        self._step_count += 1

    @abc.abstractmethod
    def factor(self, update: int) -> float:
        """Return the factor on the base lr at ``update`` in [0, total_updates - warmup_updates)."""

    def factor_with_warmup(self, update: int) -> float:
        """Return the factor on the base lr at ``update`` of the run."""
        update = min(update, self.total_updates - 1)
        if update < self.warmup_updates:
            return (update + 1) / self.warmup_updates
        return self.factor(update - self.warmup_updates)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state. Raises UserError for one that an earlier version wrote."""
        if state_dict.keys() != self.state_dict().keys():
            raise UserError(
                "resume: the checkpoint is of an earlier version of visionsweep, whose schedules "
                "had another state; resume it with that version, or start a new run"
            )
        super().load_state_dict(state_dict)

    def step_evaluation(self, value: float) -> None:
        """Take the objective's value. Call it after each evaluation."""
