"""`ImageDataset`, which every loader returns: decoded uint8 images in one tensor, with labels.

A loader of your own is a function that returns an `ImageDataset`. It receives the keys of its YAML
and nothing else. Set ``flips: false`` in it if a mirrored image does not keep its label; images of
image files come from ``parts.load_parts``, which decodes and caches them. Raise `DataError`
for missing or damaged data and `ConfigError` for a wrong setting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from visionsweep.data.streamed import Images

ALWAYS_TRAIN = -1
AUTO: Literal["auto"] = "auto"
MAX_PIXELS = 178_956_970  # of a file; Pillow's own limit

Color = tuple[int, int, int]
Levels = tuple[float, float] | Literal["auto"] | None


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a (C, H, W) uint8 tensor; stored in checkpoints for predict."""

    image_size: tuple[int, int]  # height, width
    channels: int  # 1 (grey) or 3 (RGB)
    fit: str = "crop"  # crop | pad | stretch: how other aspect ratios fit
    # Grey levels that become 0 and 255, in files of more than 8 bits per pixel. None: the range of
    # the file's type, such as 0..65535. AUTO: not known yet, to be measured on all images.
    levels: Levels = AUTO
    background: Color | None = (255, 255, 255)  # behind transparency; None: transparency is ignored
    max_pixels: int | None = MAX_PIXELS  # of a file; None: no limit


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels."""

    # (N, C, H, W) uint8; a tensor may be a read-only memory map
    images: Images
    targets: Tensor  # (N,) int64
    ids: list[str]  # path or index of each image, for the split manifest and messages
    groups: list[str] | None = None  # images of one group stay on one side of a split
    # The index of the first copy of each image, or its own; copies stay on one side too.
    copy_of: list[int] | None = None
    # Of test images: (P, 2) an image for training and a test image that looks like it.
    like_train: npt.NDArray[np.int64] | None = None
    # The data's own split: the fold in which an image validates, or ALWAYS_TRAIN.
    folds: list[int] | None = None
    # factor -> the same images with so many times the pixels per side, for random crops; None if
    # there are no files to decode again.
    enlarged: Callable[[float], Images] | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class ImageDataset:
    """Images for training and validation, and the official test split if there is one."""

    name: str
    class_names: list[str]
    train: ImageSet
    preprocessing: Preprocessing
    test: ImageSet | None = None
    flips: bool = True  # does a mirrored image keep its label?
    bad_images: list[str] = field(default_factory=list)  # files left out by on_bad_image=skip

    @property
    def num_classes(self) -> int:
        """Number of classes, including those without an image."""
        return len(self.class_names)
