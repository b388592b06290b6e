"""The chain of augmentation steps that a training batch passes through; validation never does."""

from collections.abc import Mapping
from typing import Protocol

from torch import Generator, Tensor


class Step(Protocol):
    """One augmentation of a whole batch; draws from `generator` only and leaves its arguments as they were."""

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), uint8 or float32, in 0..255; targets (B,) int64 or (B, K) float32."""
        ...


class Pipeline:
    """Steps applied in order; none is the identity."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self.steps = dict(steps)

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch; shapes and ranges as in Step. `generator` is one of the CPU, whatever the device."""
        for step in self.steps.values():
            images, targets = step(images, targets, generator)
        return images, targets
