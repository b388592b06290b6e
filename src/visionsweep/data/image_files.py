"""Image files: finds them below a folder, decodes them, checks that train and test are disjoint."""

import functools
import hashlib
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from visionsweep.data.cache import OnBadImage, decode_all
from visionsweep.data.dataset import ALWAYS_TRAIN, ImageSet, Preprocessing
from visionsweep.data.decode import image_suffixes
from visionsweep.errors import DataError

# Folders that programs make beside people's images.
SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)


@dataclass(frozen=True)
class ImageFiles:
    """Files with their labels: every list has one entry per image."""

    paths: list[Path]
    ids: list[str]
    targets: list[int]
    groups: list[str] | None = None
    folds: list[int] | None = None  # as in `ImageSet`


@dataclass(frozen=True)
class FoundImages:
    """The images below some folders, sorted by path, and what else lies there."""

    of_folder: list[list[Path]]  # in the order of the folders
    others: Counter[str]  # suffixes of files that are no images, in lower case


def scan_folders(key: str, folders: Sequence[Path]) -> FoundImages:
    """Return the images below each of `folders`, without hidden files and folders.

    Each real folder is read once, through a link only if nothing else leads there. Raises
    DataError naming `key`, the setting of the folders, if one cannot be read.
    """
    images: list[list[Path]] = [[] for _ in folders]
    others: Counter[str] = Counter()
    seen: set[str] = set()
    # Links come last: what lies below the folders belongs to the folder in which it lies.
    queue = deque((index, path) for index, path in enumerate(folders) if not path.is_symlink())
    links = deque((index, path) for index, path in enumerate(folders) if path.is_symlink())
    while queue or links:
        index, top = queue.popleft() if queue else links.popleft()
        for parent, names, file_names in os.walk(
            top, onerror=lambda error: refuse_unreadable(key, error)
        ):
            real = os.path.realpath(parent)
            if real in seen:
                names.clear()
                continue
            seen.add(real)
            names[:] = [name for name in names if not _is_hidden(name)]
            paths = [Path(parent, name) for name in names]
            links.extend((index, path) for path in paths if path.is_symlink())
            for name in file_names:
                suffix = Path(name).suffix.lower()
                if _is_hidden(name):
                    continue
                if suffix in image_suffixes():
                    images[index].append(Path(parent, name))
                else:
                    others[suffix] += 1
    return FoundImages([sorted(found) for found in images], others)


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder is none of the user's, such as ``._0.png`` of macOS."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def explain_others(others: Counter[str]) -> str:
    """Return ``3 files: .heic (2), .txt (1)``, or an empty text if there are none."""
    if not others:
        return ""
    shown = [f"{suffix or 'no suffix'} ({count:,})" for suffix, count in others.most_common(5)]
    more = ", ..." if len(others) > len(shown) else ""
    noun = "file" if others.total() == 1 else "files"
    return f"{others.total():,} {noun}: {', '.join(shown)}{more}"


def has_image(folder: Path, *, deep: bool = True) -> bool:
    """Return whether there is an image in `folder`, or with `deep` anywhere below it."""
    for _, names, file_names in os.walk(folder):
        if any(Path(name).suffix.lower() in image_suffixes() for name in file_names):
            return True
        if not deep:
            names.clear()
    return False


def require_unicode(key: str, path: Path) -> None:
    """Raise DataError if the name of `path` is not UTF-8: no table could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name, folder = (
            repr(os.fsencode(part)).removeprefix("b") for part in (path.name, path.parent)
        )
        raise DataError(f"{key}: the name {name} in {folder} is not UTF-8; rename it") from None


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
    kept = decoded.kept
    image_set = ImageSet(
        images=decoded.images,
        targets=torch.tensor([files.targets[index] for index in kept], dtype=torch.int64),
        ids=[files.ids[index] for index in kept],
        groups=None if files.groups is None else [files.groups[index] for index in kept],
        folds=None if files.folds is None else [files.folds[index] for index in kept],
        enlarged=_enlarged([files.paths[index] for index in kept], preprocessing, cache_dir),
    )
    return image_set, decoded.bad


def _enlarged(
    paths: Sequence[Path], preprocessing: Preprocessing, cache_dir: str | None
) -> Callable[[float], Tensor]:
    """Return a function that decodes the files at a larger size, once per factor."""

    @functools.cache
    def decode(factor: float) -> Tensor:
        height, width = (round(side * factor) for side in preprocessing.image_size)
        larger = replace(preprocessing, image_size=(height, width))
        return decode_all(paths, larger, "error", cache_dir).images

    return decode


def with_validation(train: ImageFiles, validation: ImageFiles) -> ImageFiles:
    """Return the files of both parts; fold 0 holds the validation images."""
    groups = None
    if train.groups is not None and validation.groups is not None:
        groups = train.groups + validation.groups
    return ImageFiles(
        train.paths + validation.paths,
        train.ids + validation.ids,
        train.targets + validation.targets,
        groups,
        [ALWAYS_TRAIN] * len(train.paths) + [0] * len(validation.paths),
    )


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
