"""What a schedule is here: the lr as a closed form of the number of optimizer updates.

Nothing is multiplied up from update to update, so a resumed run has the same lr to the bit, and every unit is
an update: an epoch is ``updates_per_epoch`` of them, whatever the accumulation.
"""

import abc
import math
from typing import Any

from torch.optim import Optimizer

from visionsweep.errors import ConfigError


def epochs_to_updates(key: str, epochs: float, updates_per_epoch: int, *, at_least: int = 0) -> int:
    """Return the duration ``scheduler.<key>`` in updates, rounded.

    Raises ConfigError unless it is finite and >= 0, or above 0 where ``at_least`` is.
    """
    if not 0 <= epochs < math.inf or (epochs == 0 and at_least > 0):
        expected = "above 0" if at_least > 0 else ">= 0"
        raise ConfigError(f"scheduler.{key}: got {epochs}, expected a number of epochs {expected}")
    return max(at_least, round(epochs * updates_per_epoch))


def warmup_to_updates(warmup_epochs: float, total_updates: int, updates_per_epoch: int) -> int:
    """Return the warm-up in updates; raises ConfigError if it leaves no update to the schedule."""
    updates = epochs_to_updates("warmup_epochs", warmup_epochs, updates_per_epoch)
    if updates >= total_updates:
        raise ConfigError(
            f"scheduler.warmup_epochs: got {warmup_epochs} ({updates} updates), expected less than the run "
            f"({total_updates} updates); lower it or raise trainer.epochs"
        )
    return updates


class Scheduler(abc.ABC):
    """The lr of each parameter group: its base lr times a factor of the update.

    Update u of the warm-up of W has the factor (u + 1) / W, so the last one is at the base lr; ``factor``
    rules the rest. From ``total_updates`` on, the lr of the last update is held.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_updates: int,
        updates_per_epoch: int,
        warmup_epochs: float = 0.0,
    ) -> None:
        """Sets the lr of update 0, so a subclass has set what ``factor`` reads before.

        Raises ConfigError if the warm-up leaves no update to the schedule.
        """
        assert total_updates >= 1
        self.optimizer = optimizer
        self.total_updates = total_updates
        self.warmup_updates = warmup_to_updates(warmup_epochs, total_updates, updates_per_epoch)
        self.num_updates = 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self._apply()

    @abc.abstractmethod
    def factor(self, update: int) -> float:
        """Return the factor on the base lr at ``update`` in [0, total_updates - warmup_updates)."""

    def step(self) -> None:
        """Set the lr of the next update. Call it after each optimizer update."""
        self.num_updates += 1
        self._apply()

    def step_evaluation(self, value: float) -> None:  # noqa: B027  (a no-op is what most schedules want)
        """Take the objective's value. Call it after each evaluation."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers."""
        return {"num_updates": self.num_updates, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, the groups' lr included."""
        self.num_updates = state["num_updates"]
        self.base_lrs = list(state["base_lrs"])
        self._apply()

    def _apply(self) -> None:
        update = min(self.num_updates, self.total_updates - 1)
        if update < self.warmup_updates:
            factor = (update + 1) / self.warmup_updates
        else:
            factor = self.factor(update - self.warmup_updates)
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * factor
