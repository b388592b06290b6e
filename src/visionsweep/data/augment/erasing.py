"""Random erasing (Zhong et al., arXiv 1708.04896): paints over a box of each image."""

import math

import torch
from torch import Generator, Tensor

from visionsweep.data.augment.boxes import box_mask, paint
from visionsweep.data.augment.ranges import require_range
from visionsweep.errors import ConfigError

MIN_ASPECT = 0.3  # height to width and its inverse, the paper's r_1


class RandomErasing:
    """Paints a box of random place, size and colour over an image with the given probability.

    The box takes a share in [min_area, max_area] of the image. A box longer than the image is cut;
    the paper draws again.
    """

    def __init__(self, probability: float, min_area: float, max_area: float) -> None:
        require_range(self, "probability", probability, 0, 1)
        require_range(self, "min_area", min_area, 0, 1)
        require_range(self, "max_area", max_area, 0, 1)
        if min_area > max_area:
            raise ConfigError(
                f"augment: RandomErasing.min_area: expected at most max_area={max_area}, "
                f"got {min_area}"
            )
        self.probability = probability
        self.min_area = min_area
        self.max_area = max_area

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return images of the same dtype, and the targets unchanged."""
        batch, channels, height, width = images.shape
        is_erased, area, log_aspect, top, left = torch.rand(5, batch, generator=generator)
        area = (self.min_area + (self.max_area - self.min_area) * area) * height * width
        aspect = torch.exp((log_aspect * 2 - 1) * -math.log(MIN_ASPECT))
        box_height = (area * aspect).sqrt().round().clamp(1, height)
        box_width = (area / aspect).sqrt().round().clamp(1, width)
        tops = (top * (height - box_height + 1)).long()
        lefts = (left * (width - box_width + 1)).long()
        # an empty box where nothing is erased
        bottoms = tops + box_height.long() * (is_erased < self.probability)
        mask = box_mask(tops, lefts, bottoms, lefts + box_width.long(), height, width)
        colors = torch.randint(256, (batch, channels, 1, 1), generator=generator)
        return paint(images, mask.to(images.device), colors.to(images)), targets
