"""The mean of a model's weights over the last epochs (Izmailov et al. 2018, arXiv 1803.05407)."""

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel


class SWA:
    """torch's ``AveragedModel``: the plain mean of the weights after each of the last updates.

    BatchNorm's running statistics are averaged too, instead of being measured again in a pass over
    the training images. Until the first of those updates there is no average.
    """

    def __init__(self, model: nn.Module, first_update: int) -> None:
        """``first_update``: counted from 0, the first one whose weights enter the mean."""
        self.first_update = first_update
        self.num_updates = 0
        self._average = AveragedModel(model, use_buffers=True)
        self._average.requires_grad_(False)

    @property
    def is_active(self) -> bool:
        """Whether there is an average yet."""
        return self.num_updates > self.first_update

    @property
    def model(self) -> nn.Module:
        """The averaged model."""
        average: nn.Module = self._average.module
        return average

    def update(self, model: nn.Module) -> None:
        """Add the weights after an update."""
        self.num_updates += 1
        if self.is_active:
            self._average.update_parameters(model)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its number of updates."""
        average = self._average.state_dict() if self.is_active else None
        return {"average": average, "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.num_updates = state["num_updates"]
        if state["average"] is not None:
            self._average.load_state_dict(state["average"])
