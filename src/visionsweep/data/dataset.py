"""The container that every data set loader returns: decoded uint8 images in one tensor, and what they allow."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a (C, H, W) uint8 tensor; stored with a checkpoint, so that predict does the same."""

    image_size: tuple[int, int]  # height, width
    channels: int  # 1 (grey) or 3 (RGB)
    fit: str = "crop"  # crop | pad | stretch: what happens to another aspect ratio


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels."""

    images: Tensor  # (N, C, H, W) uint8; may be a read-only memory map
    targets: Tensor  # (N,) int64
    ids: list[str]  # path or index of each image: how the split manifest and messages name it
    groups: list[str] | None = None  # images of one group stay on one side of a split

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class ImageDataset:
    """A data set: what may be used for training and validation, and the official test split if there is one."""

    name: str
    class_names: list[str]
    train: ImageSet
    preprocessing: Preprocessing
    test: ImageSet | None = None
    flips: bool = True  # does a mirrored image keep its label?
    bad_images: list[str] = field(default_factory=list)  # files left out by on_bad_image=skip

    @property
    def num_classes(self) -> int:
        """The number of classes, including those without an image."""
        return len(self.class_names)
