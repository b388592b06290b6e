"""The views of an image for test-time augmentation: predictions are their mean."""

from collections.abc import Callable
from typing import Final

from torch import Tensor

from visionsweep.data.resize import resize

View = Callable[[Tensor], list[Tensor]]


def _itself(images: Tensor) -> list[Tensor]:
    return [images]


def _flip(images: Tensor) -> list[Tensor]:
    return [images.flip(-1)]


def _crop(images: Tensor) -> list[Tensor]:
    (top, left), size = _margins(images), images.shape[-2:]
    return [_window(images, top // 2, left // 2, (size[0] - top, size[1] - left))]


def _corners(images: Tensor) -> list[Tensor]:
    (top, left), size = _margins(images), images.shape[-2:]
    inner = (size[0] - top, size[1] - left)
    return [_window(images, y, x, inner) for y in (0, top) for x in (0, left)]


def _margins(images: Tensor) -> tuple[int, int]:
    """Return how many rows and columns a crop leaves out: an eighth, at least one."""
    height, width = images.shape[-2:]
    return max(1, round(height / 8)), max(1, round(width / 8))


def _window(images: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    window = images[..., top : top + size[0], left : left + size[1]]
    height, width = images.shape[-2:]
    return resize(window.contiguous(), (height, width))


# Each takes (N, C, H, W) uint8 images and returns one or more of the same shape.
VIEWS: Final[dict[str, View]] = {
    "none": _itself,
    "flip": _flip,  # the mirror image
    "crop": _crop,  # the middle 7/8 of each side, enlarged
    "corners": _corners,  # 7/8 of each side at each of the four corners, enlarged
}
