"""Finds image files below folders."""

import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from visionsweep.data.decode import image_suffixes
from visionsweep.errors import DataError

# Folders that programs make beside people's images.
SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)


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
