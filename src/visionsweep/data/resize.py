"""Other sizes of images that are decoded already."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (B, C, H, W) in 0..255 as (B, C, *size) of the same dtype.

    Bilinear and antialiased, as Pillow's.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    # On uint8 torch is as fast as Pillow, but only on a CPU.
    is_exact = images.is_floating_point() or images.device.type == "cpu"
    source = images if is_exact else images.float()
    resized = F.interpolate(source, size, mode="bilinear", antialias=True, align_corners=False)
    return resized if is_exact else resized.round_().clamp_(0, 255).to(images.dtype)


def resize_boxes(
    images: Tensor, boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int]
) -> Tensor:
    """Return the box (top, left, height, width) of each image in `size`, as `resize` does."""
    out = images.new_empty((len(images), images.shape[1], *size))
    for row, (top, left, height, width) in enumerate(boxes):
        out[row] = resize(images[row : row + 1, :, top : top + height, left : left + width], size)[
            0
        ]
    return out
