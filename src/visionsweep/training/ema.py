"""An exponential moving average of a model's weights."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Averaged weights: ``average = d * average + (1 - d) * weights`` after every update.

    ``d = min(decay, (1 + updates) / (10 + updates))``, as TensorFlow's `ExponentialMovingAverage`:
    the random start then does not dominate a short run. Buffers such as BatchNorm's running
    statistics are averaged too; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model's weights to the average."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        weights = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(weights[name])
            else:
                average.copy_(weights[name])
        torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """Return the average and its number of updates."""
        return {"model": self.model.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
        self.num_updates = int(state["num_updates"])  # type: ignore[call-overload]
