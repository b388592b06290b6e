"""Image files: found below a folder, decoded into an ImageSet, checked against the files of another part."""

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
    """Files with their labels, one entry an image in every list."""

    paths: list[Path]
    ids: list[str]
    targets: list[int]
    groups: list[str] | None = None


def find_images_below(key: str, folder: Path) -> tuple[list[Path], int]:
    """Sorted image files below a folder, and the number of other files; hidden ones are in neither.

    DataError naming `key`, the setting that named the folder, when a sub-folder cannot be read.
    """
    images: list[Path] = []
    num_others = 0
    # os.walk would leave an unreadable folder out silently.
    for parent, folders, names in os.walk(
        folder, onerror=lambda e: refuse_unreadable(key, e), followlinks=True
    ):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):  # among them ._NAME, which macOS leaves in archives
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
        f"{key}: cannot list {error.filename} ({error.strerror}). Correct its permissions"
    ) from error


def load_files(
    files: ImageFiles, preprocessing: Preprocessing, on_bad_image: OnBadImage, cache_dir: str | None
) -> tuple[ImageSet, list[str]]:
    """The decoded images, and the files that on_bad_image=skip left out."""
    decoded = decode_all(files.paths, preprocessing, on_bad_image, cache_dir)
    groups = None if files.groups is None else [files.groups[index] for index in decoded.kept]
    image_set = ImageSet(
        images=decoded.images,
        targets=torch.tensor([files.targets[index] for index in decoded.kept], dtype=torch.int64),
        ids=[files.ids[index] for index in decoded.kept],
        groups=groups,
    )
    return image_set, [path for path, _ in decoded.bad]


def check_disjoint(train: ImageFiles, test: ImageFiles, key: str) -> None:
    """DataError when a file's bytes are in both parts; `key` is the setting that named them.

    Only files of equal size are read.
    """
    train_by_size, test_by_size = _by_size(train.paths), _by_size(test.paths)
    num_shared, example = 0, None
    for size in train_by_size.keys() & test_by_size.keys():
        train_by_hash = {_sha256(path): path for path in train_by_size[size]}
        for path in test_by_size[size]:
            twin = train_by_hash.get(_sha256(path))
            if twin is not None:
                num_shared += 1
                example = min(example or (path, twin), (path, twin))
    if example is not None:
        raise DataError(
            f"{key}: {num_shared:,} of {len(test.paths):,} test files are in train too, "
            f"e.g. {example[0]} = {example[1]}. Remove them from one of the two"
        )


def _by_size(paths: Iterable[Path]) -> dict[int, list[Path]]:
    sizes = defaultdict(list)
    for path in paths:
        try:
            sizes[path.stat().st_size].append(path)
        except OSError as error:
            raise DataError(
                f"cannot read {path} ({error.strerror}). Correct the path, or its permissions"
            ) from error
    return sizes


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}). Correct the path, or its permissions"
        ) from error
