"""Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 in ten classes (arXiv 1708.07747)."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from visionsweep.data.dataset import ImageDataset, ImageSet, Preprocessing
from visionsweep.data.labels import check_labels
from visionsweep.data.paths import absolute, default_cache_dir
from visionsweep.errors import DataError

CLASS_NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_fashion_mnist(
    root: str | None = None, download: bool = False, flips: bool = True
) -> ImageDataset:
    """Return Fashion-MNIST with its official test split; a DataError says where it looked.

    It looks below `root` only, or without one in the Debian package's folder and the cache folder.
    """
    files = _locate(root, download)
    with ThreadPoolExecutor(len(files)) as executor:  # zlib releases the GIL
        train_images, train_targets, test_images, test_targets = executor.map(read_idx, files)
    return ImageDataset(
        name="fashion_mnist",
        class_names=list(CLASS_NAMES),
        train=_image_set(train_images, train_targets, files[0], "train"),
        test=_image_set(test_images, test_targets, files[2], "test"),
        preprocessing=Preprocessing(image_size=(28, 28), channels=1),
        flips=flips,
    )


def read_idx(path: Path) -> Tensor:
    """Return the uint8 array of an idx file, gzipped or not."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}); download it again") from error
    # Header: two zero bytes, type (8: uint8), number of dimensions, big-endian uint32 sizes.
    num_dims = content[3] if len(content) > 3 else 0
    if content[:3] != b"\x00\x00\x08" or not 1 <= num_dims <= 4 or len(content) < 4 + 4 * num_dims:
        raise DataError(
            f"{path} is not an idx file of bytes (header {content[:4].hex() or 'missing'})"
        )
    shape = struct.unpack_from(f">{num_dims}I", content, 4)
    offset = 4 + 4 * num_dims
    num_bytes, dims = len(content) - offset, "x".join(map(str, shape))
    if num_bytes != math.prod(shape):
        raise DataError(
            f"{path}: expected {dims} bytes by its header, got {num_bytes:,}; download it again"
        )
    if num_bytes == 0:
        raise DataError(f"{path} holds no image: its header says {dims}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=offset).view(shape)


def _image_set(images: Tensor, labels: Tensor, path: Path, part: str) -> ImageSet:
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: expected N images of 28x28 and N labels, "
            f"got shapes {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    targets = labels.to(torch.int64)
    check_labels(targets, len(CLASS_NAMES), f"{part} ({path.parent})")
    return ImageSet(
        images.unsqueeze(1), targets, [f"{part}/{index}" for index in range(len(targets))]
    )


def _locate(root: str | None, download: bool) -> list[Path]:
    home = default_cache_dir() if root is None else absolute("data.root", root)
    # The second one is torchvision's layout below a root.
    folders = [home, home / "FashionMNIST" / "raw"]
    if root is None:
        folders.insert(0, DEBIAN_FOLDER)
    files = _find(folders)
    if files is None and download:
        _download(home)
        files = _find(folders)
    if files is None:
        looked = ", ".join(map(str, folders))
        raise DataError(
            f"Fashion-MNIST is not in {looked} (data.root={root or 'null'}). Run "
            "`apt install dataset-fashion-mnist`, or set data.download=true or data.root=FOLDER"
        )
    return files


def _find(folders: Sequence[Path]) -> list[Path] | None:
    """Return the four files in the first folder that has all; plain ones go before gzipped ones."""
    for folder in folders:
        choices = [[folder / name, folder / f"{name}.gz"] for name in FILES]
        found = [next((path for path in pair if path.is_file()), None) for pair in choices]
        files = [path for path in found if path is not None]
        if len(files) == len(FILES):
            return files
    return None


def _download(home: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(home), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"data.download=true: cannot download Fashion-MNIST to {home} ({error}). "
            "Try again, run `apt install dataset-fashion-mnist`, or set data.root=FOLDER"
        ) from error
