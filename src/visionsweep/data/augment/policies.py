"""Augmentations of torchvision with random parameters of each image.

torchvision v2 draws one set of parameters for a whole batch, from torch's global generator. Here
each image gets its own, from the generator of the batch. A loop over images is as fast as whole
batches are with kornia, or with one `grid_sample` (`benchmarks/augmentation.py`).
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from visionsweep.data.augment.ranges import require_range
from visionsweep.errors import ConfigError


class Rotation:
    """Turns each image by a random angle within +-`degrees`, on black, at the same size."""

    def __init__(self, degrees: float) -> None:
        require_range(self, "degrees", degrees, 0, 180)
        self.degrees = degrees

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return images of the same dtype, and the targets unchanged."""
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import rotate

        draws = torch.rand(len(images), generator=generator, dtype=torch.float64)
        angles = ((2 * draws - 1) * self.degrees).tolist()
        turned = [
            rotate(image, angle, InterpolationMode.BILINEAR)
            for image, angle in zip(images, angles, strict=True)
        ]
        return torch.stack(turned), targets


class RandAugment:
    """`num_ops` random operations per image, all of strength `magnitude` (arXiv 1909.13719).

    torchvision's operations and ranges, with bilinear sampling.
    """

    def __init__(self, num_ops: int, magnitude: int) -> None:
        from torchvision.transforms import v2

        if num_ops < 1:
            raise ConfigError(f"augment: RandAugment.num_ops: expected at least 1, got {num_ops}")
        require_range(self, "magnitude", magnitude, 0, 30)
        self._transform = v2.RandAugment(
            num_ops, magnitude, interpolation=v2.InterpolationMode.BILINEAR
        )

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return uint8 images, and the targets unchanged."""
        return _apply_to_each(self._transform, images, generator), targets


class TrivialAugment:
    """One random operation of random strength per image (arXiv 2103.10158, "wide").

    torchvision's operations and ranges, with bilinear sampling.
    """

    def __init__(self) -> None:
        from torchvision.transforms import v2

        self._transform = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return uint8 images, and the targets unchanged."""
        return _apply_to_each(self._transform, images, generator), targets


def _apply_to_each(
    transform: Callable[[Tensor], Tensor], images: Tensor, generator: Generator
) -> Tensor:
    """Return the transformed images as uint8; the global generator is as before."""
    if images.is_floating_point():
        images = images.round().clamp(0, 255).to(torch.uint8)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return torch.stack([transform(image) for image in images])
