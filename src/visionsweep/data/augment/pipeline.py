"""The chain of augmentation steps for training batches; validation never passes it."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

from visionsweep.errors import ConfigError


class Step(Protocol):
    """One augmentation of a whole batch; draws from `generator` only, never changes its arguments.

    ``build`` passes those of these arguments that a step's class names, besides the keys of its
    YAML: ``num_classes`` (int), ``flips`` (bool: does a mirrored image keep its label?) and
    ``image_size`` ((int, int): height and width that the model sees). A step with an attribute
    ``stored`` above 1 gets images of so many times these pixels per side, if there are any.
    """

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Take and return images (B, C, H, W), uint8 or float32, in 0..255, and their targets.

        Only a step with ``stored`` changes their size: it returns those of ``image_size``.
        Targets are (B,) int64 or (B, K) float32. `generator` is a CPU one on every device.
        """
        ...


@runtime_checkable
class Mixer(Step, Protocol):
    """A step that mixes each image with another one."""

    def mix(
        self,
        images: Tensor,
        targets: Tensor,
        others: Tensor,
        other_targets: Tensor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return each image mixed with the one of `others` in its row, and their mixed targets."""
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

    @property
    def stored(self) -> float:
        """How many times the model's pixels per side the images should have."""
        return max((getattr(step, "stored", 1.0) for step in self.steps.values()), default=1.0)

    @property
    def num_sources(self) -> int:
        """How many images go into one: each mixing step doubles them."""
        return 1 << sum(isinstance(step, Mixer) for step in self.steps.values())

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment (num_sources * B, C, H, W) images to (B, C, H, W); ranges as in Step.

        A mixing step mixes the first half with the second, both augmented by the steps before it.
        So whoever gathers the images decides what is mixed with what.
        """
        for step in self.steps.values():
            if isinstance(step, Mixer):
                half = len(images) // 2
                images, targets = step.mix(
                    *(images[:half], targets[:half], images[half:], targets[half:]), generator
                )
            else:
                images, targets = step(images, targets, generator)
        return images, targets
