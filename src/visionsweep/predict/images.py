"""The image files to predict: all below a folder, or those that a CSV file lists."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from visionsweep.data.image_files import explain_others, require_unicode, scan_folders
from visionsweep.data.paths import require_folder
from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.table import Table, read_table

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
    """An image file, and how its folder or CSV file names it: a path with slashes."""

    path: Path
    name: str


def find_images(
    source: Path, image_column: str | None, root: Path | None
) -> tuple[list[ImageFile], str]:
    """Return the images of `source`: a folder's, sorted by path, or a CSV file's, in its order.

    The text says which files of the folder are left out; it is empty if none is. ``image_column``
    and ``root`` are for a CSV file: the column of the paths, and the folder that they start from.
    Raises `ConfigError` or `DataError` if there is no image, or one is missing.
    """
    if source.is_dir():
        for key, value in (("data.image", image_column), ("data.root", root)):
            if value is not None:
                raise ConfigError(
                    f"{key}: belongs to a CSV file, but data.predict={source} is a folder; "
                    "leave it out"
                )
        found = scan_folders("data.predict", [source])
        images = [
            ImageFile(path, path.relative_to(source).as_posix()) for path in found.of_folder[0]
        ]
        others = explain_others(found.others)
        if not images:
            raise DataError(
                f"data.predict: no image below {source}{f' ({others})' if others else ''}; "
                "expected files such as NAME.jpg or NAME.png"
            )
    else:
        images = _images_listed(read_table("data.predict", source), image_column, root)
        others = ""
    for image in images:
        require_unicode("data.predict", image.path)
    return images, others


def _images_listed(table: Table, image_column: str | None, root: Path | None) -> list[ImageFile]:
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
    images = []
    for row in table.rows:
        name = row[column].strip()
        images.append(ImageFile(folder / name, str(PurePosixPath(name))))
    missing = [image.path for image in images if not image.path.is_file()]
    if missing:
        raise DataError(
            f"data.predict: {len(missing):,} of {len(images):,} images of {table.path} do not "
            f"exist, e.g. {missing[0]} (column '{table.header[column]}'); "
            "set data.root=FOLDER or data.image=COLUMN"
        )
    return images


def _guess_column(table: Table) -> int:
    names = [name.strip().lower() for name in table.header]
    for name in IMAGE_COLUMNS:
        if name in names:
            return names.index(name)
    raise ConfigError(
        f"data.image: not set, and no column of {table.path} is named {', '.join(IMAGE_COLUMNS)}; "
        f"set it to one of {', '.join(table.header)}"
    )
