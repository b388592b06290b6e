"""Step decay: the lr falls by a factor every few epochs."""

from torch.optim import Optimizer

from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler, epochs_to_updates


class StepScheduler(Scheduler):
    """gamma^(number of whole steps since the warm-up): torch's ``StepLR``, counted in updates."""

    def __init__(
        self,
        optimizer: Optimizer,
        step_epochs: float,
        gamma: float,
        warmup_epochs: float = 0.0,
        *,
        total_updates: int,
        updates_per_epoch: int,
    ) -> None:
        """Raises ConfigError unless step_epochs > 0, 0 < gamma <= 1, and as the base class does."""
        if not 0 < gamma <= 1:
            raise ConfigError(
                f"scheduler.gamma: expected a number in (0, 1], such as 0.1, got {gamma}"
            )
        self.gamma = gamma
        self.step_updates = epochs_to_updates(
            "step_epochs", step_epochs, updates_per_epoch, at_least=1
        )
        super().__init__(
            optimizer,
            total_updates=total_updates,
            updates_per_epoch=updates_per_epoch,
            warmup_epochs=warmup_epochs,
        )

    def factor(self, update: int) -> float:
        """Return gamma^floor(update / step)."""
        return self.gamma ** (update // self.step_updates)
