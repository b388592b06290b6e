"""The image files to predict: all below a folder, those that a CSV file lists, or a single one."""

from dataclasses import dataclass
from pathlib import Path

from visionsweep.data.decode import image_suffixes
from visionsweep.data.file_finder import FileFinder
from visionsweep.data.image_files import explain_others, require_unicode, scan_folders
from visionsweep.data.paths import require_folder
from visionsweep.data.table import Table, read_table
from visionsweep.errors import ConfigError, DataError
from visionsweep.text import counted

# Names of the column with the paths, in lower case, the most likely first.
IMAGE_COLUMNS = (
    "path",
    "image",
    "image_path",
    "file",
    "filename",
    "file_name",
    "image_id",
    "imageid",
    "id",
)


@dataclass(frozen=True)
class ImageFile:
    """An image file, and how its folder or CSV file names it."""

    path: Path
    name: str  # relative to the folder, with slashes; or the cell of the CSV file


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder, sorted by path, or those of a CSV file in its order."""

    images: list[ImageFile]
    is_table: bool
    folder: Path  # that the names start from
    left_out: str = ""  # which files of the folder are no images

    def absent(self, name: str) -> ImageFile:
        """Return an image that is not there, which no decoder can read."""
        return ImageFile(self.folder / name, name)


def find_images(
    source: Path, image_column: str | None, root: Path | None, *, needs_all: bool = True
) -> FoundImages:
    """Return the images of `source`: a folder, a CSV file or an image.

    ``image_column`` and ``root`` are for a CSV file: the column of the paths, and the folder that
    they start from. Raises `ConfigError` or `DataError` if there is no image, or one is missing
    (without ``needs_all``: if all are).
    """
    if source.is_dir() or source.suffix.lower() in image_suffixes():
        for key, value in (("data.image", image_column), ("data.root", root)):
            if value is not None:
                kind = "a folder" if source.is_dir() else "an image"
                raise ConfigError(
                    f"{key}: belongs to a CSV file, but data.predict={source} is {kind}; "
                    "leave it out"
                )
    if source.is_dir():
        found = _images_below(source)
    elif source.is_file() and source.suffix.lower() in image_suffixes():
        found = FoundImages([ImageFile(source, source.name)], False, source.parent)
    else:
        table = read_table("data.predict", source)
        found = _images_listed(table, image_column, root, needs_all=needs_all)
    for image in found.images:
        require_unicode("data.predict", image.path)
    return found


def _images_below(folder: Path) -> FoundImages:
    scanned = scan_folders("data.predict", [folder])
    (paths,) = scanned.of_folder
    others = explain_others(scanned.others)
    if not paths:
        raise DataError(
            f"data.predict: no image below {folder}{f' ({others})' if others else ''}; "
            "expected files such as NAME.jpg or NAME.png"
        )
    images = [ImageFile(path, path.relative_to(folder).as_posix()) for path in paths]
    return FoundImages(images, False, folder, left_out=others)


def _images_listed(
    table: Table, image_column: str | None, root: Path | None, *, needs_all: bool
) -> FoundImages:
    column = (
        table.index("data.image", image_column)
        if image_column is not None
        else _guess_column(table)
    )
    folder = (
        table.path.parent
        if root is None
        else require_folder("data.root", str(root), "the folder of the images")
    )
    finder = FileFinder(folder)
    names = [row[column].strip() for row in table.rows]
    paths = [finder.find(name) for name in names]
    missing = [index for index, path in enumerate(paths) if path is None]
    if missing and (needs_all or len(missing) == len(names)):
        first = missing[0]
        raise DataError(
            f"data.predict: {len(missing):,} of {counted(len(names), 'image')} of {table.path} not "
            f"found, e.g. {finder.path_of(names[first])} (line {table.lines[first]}, column "
            f"'{table.header[column]}'); set data.root=FOLDER or data.image=COLUMN"
        )
    images = [
        ImageFile(finder.path_of(name) if path is None else path, name)
        for path, name in zip(paths, names, strict=True)
    ]
    return FoundImages(images, True, folder)


def _guess_column(table: Table) -> int:
    names = [name.strip().lower() for name in table.header]
    for name in IMAGE_COLUMNS:
        if name in names:
            return table.index("data.image", table.header[names.index(name)])
    raise ConfigError(
        f"data.image: not set, and no column of {table.path} is named {', '.join(IMAGE_COLUMNS)}; "
        f"set it to one of {', '.join(table.header)}"
    )
