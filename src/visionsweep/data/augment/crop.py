"""Random resized crop (Szegedy et al., arXiv 1409.4842, section 6)."""

import math

import torch
from torch import Generator, Tensor

from visionsweep.data.augment.ranges import require_range
from visionsweep.data.resize import resize_boxes


class RandomResizedCrop:
    """Resizes a random part of each image to the size that the model sees.

    The part has a share of the area in [min_scale, 1], uniform, and 1/max_ratio to max_ratio times
    the image's ratio of height to width, log-uniform; the ratio is drawn such that the part fits
    (torchvision draws again). ``stored`` is how many times the model's pixels per side the images
    have, if they come from files: a small part then still has pixels of its own.
    """

    def __init__(
        self, min_scale: float, max_ratio: float, stored: float, image_size: tuple[int, int]
    ) -> None:
        require_range(self, "min_scale", min_scale, 0.01, 1)
        require_range(self, "max_ratio", max_ratio, 1, 10)
        require_range(self, "stored", stored, 1, 4)
        self.min_scale = min_scale
        self.max_ratio = max_ratio
        self.stored = stored
        self.image_size = image_size

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return images of the same dtype and the model's size, and the targets unchanged."""
        draws = torch.rand(4, len(images), generator=generator, dtype=torch.float64).tolist()
        height, width = images.shape[-2:]
        boxes = [self._box(height, width, *each) for each in zip(*draws, strict=True)]
        return resize_boxes(images, boxes, self.image_size), targets

    def _box(
        self, height: int, width: int, area: float, ratio: float, top: float, left: float
    ) -> tuple[int, int, int, int]:
        """Return top, left, height and width of a part, from four draws in [0, 1)."""
        share = self.min_scale + (1 - self.min_scale) * area
        # sqrt(share * ratio) and sqrt(share / ratio) are at most 1
        limit = math.log(min(self.max_ratio, 1 / share))
        stretch = math.exp((2 * ratio - 1) * limit)
        box_height = max(1, round(math.sqrt(share * stretch) * height))
        box_width = max(1, round(math.sqrt(share / stretch) * width))
        tops, lefts = height - box_height + 1, width - box_width + 1
        return int(top * tops), int(left * lefts), box_height, box_width
