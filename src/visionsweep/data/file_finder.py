"""Finds the image file that a cell of a table names."""

import os
from collections import defaultdict
from pathlib import Path

from visionsweep.data.decode import image_suffixes
from visionsweep.data.table import nfc


class FileFinder:
    """Looks up names below a folder; each folder is listed at most once.

    A name may lack its suffix, hold backslashes, or spell an accented letter in another way than
    the file system.
    """

    def __init__(self, base: Path, suffix: str | None = None) -> None:
        self._base = base
        self._suffix = suffix
        self._listings: dict[str, dict[str, list[Path]]] = {}

    def find(self, name: str) -> Path | None:
        """Return the file of that name, or None if there is none, or more than one."""
        path = self.path_of(name)
        if _is_file(path):
            return path
        for spelling in (name, name.replace("\\", "/")):
            path = self.path_of(spelling)
            if _is_file(path):
                return path
            found = self._listed(str(path.parent)).get(nfc(path.name), [])
            if len(found) == 1:
                return found[0]
        return None

    def path_of(self, name: str) -> Path:
        """Return the path that `name` says: a/../a/0.png is a/0.png."""
        if self._suffix is not None and not name.endswith(self._suffix):
            name += self._suffix
        return Path(os.path.normpath(self._base / os.path.expanduser(name)))

    def _listed(self, folder: str) -> dict[str, list[Path]]:
        """Return the images of a folder by name, and by name without suffix."""
        if folder not in self._listings:
            listing: dict[str, list[Path]] = defaultdict(list)
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            for path in (Path(folder, name) for name in names):
                listing[nfc(path.name)].append(path)
                if self._suffix is None and path.suffix.lower() in image_suffixes():
                    listing[nfc(path.stem)].append(path)
            self._listings[folder] = listing
        return self._listings[folder]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, or a folder that may not be entered
        return False
