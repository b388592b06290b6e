"""The chain of augmentation steps for training batches; validation never passes it."""

from collections.abc import Mapping
from typing import Protocol

from torch import Generator, Tensor

from visionsweep.errors import ConfigError


class Step(Protocol):
    """One augmentation of a whole batch; draws from `generator` only, never changes its arguments.

    ``build`` passes those of these arguments that a step's class names, besides the keys of its
    YAML: ``num_classes`` (int) and ``flips`` (bool: does a mirrored image keep its label?).
    """

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Take and return images (B, C, H, W), uint8 or float32, in 0..255, and their targets.

        Targets are (B,) int64 or (B, K) float32. `generator` is a CPU one on every device.
        """
        ...


class Pipeline:
    """Applies steps in order; without any it is the identity."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        for name, step in steps.items():
            if not callable(step):
                raise ConfigError(
                    f"augment.steps.{name}: expected a step with `_target_`, got {step!r}"
                )
        self.steps = dict(steps)

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch; shapes and ranges as in Step."""
        for step in self.steps.values():
            images, targets = step(images, targets, generator)
        return images, targets
