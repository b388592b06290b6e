"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 in ten classes (Krizhevsky, 2009)."""

from pathlib import Path
from typing import Any

import torch

from visionsweep.data.dataset import ImageDataset, ImageSet, Preprocessing
from visionsweep.data.paths import absolute, default_cache_dir
from visionsweep.errors import DataError

ARCHIVE_FOLDER = "cifar-10-batches-py"


def load_cifar10(
    root: str | None = None, download: bool = False, flips: bool = True
) -> ImageDataset:
    """Return CIFAR-10 with its official test split, read below `root` or the cache folder.

    The batches are pickles: torchvision checks their MD5 sums before it opens them. Raises
    DataError if they are missing or damaged.
    """
    home = default_cache_dir() if root is None else absolute("data.root", root)
    if not download and not (home / ARCHIVE_FOLDER).is_dir():
        raise DataError(
            f"CIFAR-10 is not in {home / ARCHIVE_FOLDER} (data.root={root or 'null'}). Set "
            "data.download=true (170 MB), or data.root to the folder that holds this folder"
        )
    train = _open(home, is_train=True, download=download)
    return ImageDataset(
        name="cifar10",
        class_names=list(train.classes),
        train=_image_set(train, "train"),
        test=_image_set(_open(home, is_train=False, download=False), "test"),
        preprocessing=Preprocessing(image_size=(32, 32), channels=3),
        flips=flips,
    )


def _open(home: Path, *, is_train: bool, download: bool) -> Any:
    from torchvision.datasets import CIFAR10

    try:
        return CIFAR10(str(home), train=is_train, download=download)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"cannot read CIFAR-10 in {home} ({reason}). Remove {home / ARCHIVE_FOLDER} and set "
            "data.download=true, or set data.root=FOLDER"
        ) from error


def _image_set(source: Any, part: str) -> ImageSet:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    targets = torch.tensor(source.targets, dtype=torch.int64)
    return ImageSet(images, targets, [f"{part}/{index}" for index in range(len(targets))])
