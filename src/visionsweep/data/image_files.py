"""Image files: finds them below a folder, decodes them, checks that train and test are disjoint."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

from visionsweep.data.cache import OnBadImage, decode_all
from visionsweep.data.dataset import ImageSet, Preprocessing
from visionsweep.data.decode import IMAGE_SUFFIXES
from visionsweep.errors import DataError


@dataclass(frozen=True)
class ImageFiles:
    """Files with their labels: every list has one entry per image."""

    paths: list[Path]
    ids: list[str]
    targets: list[int]
    groups: list[str] | None = None


def find_images_below(key: str, folder: Path) -> tuple[list[Path], int]:
    """Return the sorted image files below a folder and the number of others, hidden ones left out.

    Raises DataError naming `key`, the setting of the folder, if a subfolder cannot be read.
    """
    images: list[Path] = []
    num_others = 0
    # By default os.walk skips an unreadable folder silently.
    for parent, folders, names in os.walk(
        folder, onerror=lambda e: refuse_unreadable(key, e), followlinks=True
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):  # such as ._NAME, which macOS leaves in archives
                continue
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                num_others += 1
    return sorted(images), num_others


def refuse_unreadable(key: str, error: OSError) -> NoReturn:
    """Raise DataError for a folder that cannot be listed."""
    raise DataError(
        f"{key}: cannot list {error.filename} ({error.strerror}); correct its permissions"
    ) from error


def load_files(
    files: ImageFiles, preprocessing: Preprocessing, on_bad_image: OnBadImage, cache_dir: str | None
) -> tuple[ImageSet, list[str]]:
    """Return the decoded images, and the paths of files that on_bad_image=skip left out."""
    decoded = decode_all(files.paths, preprocessing, on_bad_image, cache_dir)
    groups = None if files.groups is None else [files.groups[index] for index in decoded.kept]
    image_set = ImageSet(
        images=decoded.images,
        targets=torch.tensor([files.targets[index] for index in decoded.kept], dtype=torch.int64),
        ids=[files.ids[index] for index in decoded.kept],
        groups=groups,
    )
    return image_set, decoded.bad


def check_disjoint(train: ImageFiles, test: ImageFiles, key: str) -> None:
    """Raise DataError if a file's bytes are in both parts; `key` is the setting that named them.

    Only files of equal size are read.
    """
    try:
        shared = _find_shared(train.paths, test.paths)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename} ({error.strerror}); correct the path or its permissions"
        ) from error
    if shared:
        path, twin = min(shared)
        raise DataError(
            f"{key}: {len(shared):,} of {len(test.paths):,} test files are in train too, "
            f"e.g. {path} = {twin}. Remove them from one of the two"
        )


def _find_shared(train: Iterable[Path], test: Iterable[Path]) -> list[tuple[Path, Path]]:
    train_by_size, test_by_size = _by_size(train), _by_size(test)
    shared = []
    for size in train_by_size.keys() & test_by_size.keys():
        train_by_hash = {_sha256(path): path for path in train_by_size[size]}
        twins = [(path, train_by_hash.get(_sha256(path))) for path in test_by_size[size]]
        shared += [(path, twin) for path, twin in twins if twin is not None]
    return shared


def _by_size(paths: Iterable[Path]) -> dict[int, list[Path]]:
    sizes = defaultdict(list)
    for path in paths:
        sizes[path.stat().st_size].append(path)
    return sizes


def _sha256(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
