"""Images listed in a CSV file: one row per image, columns found by their names."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionsweep.data.cache import OnBadImage
from visionsweep.data.dataset import ImageDataset
from visionsweep.data.decode import Fit, make_preprocessing
from visionsweep.data.image_files import ImageFiles, check_disjoint, load_files
from visionsweep.data.labels import sorted_class_names, warn_empty_classes
from visionsweep.data.paths import require_file, require_folder
from visionsweep.errors import ConfigError, DataError
from visionsweep.text import did_you_mean


@dataclass(frozen=True)
class _Row:
    line: int  # in the file, for messages
    image: str
    label: str
    group: str | None


def load_csv(
    path: str | None,
    label: str | None,
    image_size: int | Sequence[int],
    image: str = "path",
    group: str | None = None,
    root: str | None = None,
    test_path: str | None = None,
    classes: Sequence[str | int] | int | None = None,
    channels: int = 3,
    fit: Fit = "crop",
    on_bad_image: OnBadImage = "error",
    cache_dir: str | None = None,
    flips: bool = True,
) -> ImageDataset:
    """Return the images that the CSV file `path` lists.

    `image`, `label` and `group` name columns. Images are looked up below `root`, by default the CSV
    file's own folder. `classes` lists the classes in order, or gives their number for labels
    0..n-1; by default they are the labels that occur, integers by value. `test_path` is a second
    CSV file with the official test split. Raises ConfigError or DataError naming file and line.
    """
    preprocessing = make_preprocessing(image_size, channels, fit)
    table = require_file("data.path", path, "the CSV file with one row per image")
    if not label:
        raise ConfigError("data.label is not set: give the name of the column with the labels")
    folder = None if root is None else require_folder("data.root", root, "the folder of the images")
    columns = {"data.image": image, "data.label": label} | ({"data.group": group} if group else {})
    rows = _read_rows(table, columns)
    class_names = _class_names(classes, rows)
    train_files = _to_files(rows, table, folder, class_names, classes)
    test_files = None
    if test_path is not None:
        test_table = require_file(
            "data.test_path", test_path, "a CSV file with the columns of data.path"
        )
        test_rows = _read_rows(test_table, columns)
        test_files = _to_files(test_rows, test_table, folder, class_names, classes)
        check_disjoint(train_files, test_files, "data.test_path")
    train, bad = load_files(train_files, preprocessing, on_bad_image, cache_dir)
    warn_empty_classes(class_names, train.targets, str(table))
    test = None
    if test_files is not None:
        test, test_bad = load_files(test_files, preprocessing, on_bad_image, cache_dir)
        bad = bad + test_bad
    return ImageDataset(
        name=table.stem,
        class_names=class_names,
        train=train,
        preprocessing=preprocessing,
        test=test,
        flips=flips,
        bad_images=bad,
    )


def _read_rows(path: Path, columns: dict[str, str]) -> list[_Row]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            _check_columns(path, reader.fieldnames or [], columns)
            for record in reader:
                values = {key: (record[name] or "").strip() for key, name in columns.items()}
                for key, value in values.items():
                    if not value:
                        raise DataError(
                            f"{path} line {reader.line_num}: column {columns[key]} ({key}) is "
                            "empty. Fill it in, or remove the row"
                        )
                rows.append(
                    _Row(
                        reader.line_num,
                        values["data.image"],
                        values["data.label"],
                        values.get("data.group"),
                    )
                )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise DataError(
            f"cannot read {path} ({error}). Expected a CSV file with a header"
        ) from error
    if not rows:
        raise DataError(f"{path} has a header but no row: expected one row per image")
    return rows


def _check_columns(path: Path, available: Sequence[str], columns: dict[str, str]) -> None:
    for key, name in columns.items():
        if available.count(name) > 1:
            raise DataError(
                f"{key}={name}: {path} has {available.count(name)} columns of that name; rename one"
            )
        if name not in available:
            raise DataError(
                f"{key}={name}: {path} has no such column. Set {key} to one of its columns "
                f"({', '.join(available) or 'none'}){did_you_mean(name, available)}"
            )


def _class_names(classes: Sequence[str | int] | int | None, rows: Sequence[_Row]) -> list[str]:
    if classes is None:
        names = sorted_class_names(row.label for row in rows)
    elif isinstance(classes, int):
        names = [str(index) for index in range(classes)]
    else:
        names = [str(name) for name in classes]
    if len(set(names)) != len(names):
        raise ConfigError(f"data.classes: expected distinct names, got {names}")
    if len(names) < 2:
        raise DataError(
            f"data.label: expected at least 2 classes, got {len(names)} ({', '.join(names)})"
        )
    return names


def _to_files(
    rows: Sequence[_Row],
    table: Path,
    folder: Path | None,
    class_names: Sequence[str],
    classes: Sequence[str | int] | int | None,
) -> ImageFiles:
    """Return the rows as files with class numbers; DataError names the line of a bad one."""
    numbers = {name: number for number, name in enumerate(class_names)}
    base = table.parent if folder is None else folder
    lines: dict[Path, int] = {}
    for row in rows:
        if row.label not in numbers:
            raise DataError(_explain_label(row, table, class_names, classes))
        # a/../a/0.png is a/0.png
        path = Path(os.path.normpath(base / os.path.expanduser(row.image)))
        if path in lines:
            raise DataError(
                f"{table} line {row.line}: {row.image} is in line {lines[path]} too, so it could "
                "be in train and val at once. Remove one (trainer.sampler can repeat rare classes)"
            )
        if not _is_file(path):
            raise DataError(
                f"{table} line {row.line}: {path} does not exist (current directory: "
                f"{Path.cwd()}). Correct the row, or set data.root to the folder of the images"
            )
        lines[path] = row.line
    return ImageFiles(
        paths=list(lines),
        ids=[row.image for row in rows],
        targets=[numbers[row.label] for row in rows],
        groups=[row.group for row in rows if row.group is not None] or None,
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, or a folder that may not be entered
        return False


def _explain_label(
    row: _Row, table: Path, class_names: Sequence[str], classes: Sequence[str | int] | int | None
) -> str:
    where = f"label {row.label} in {table} line {row.line}"
    if isinstance(classes, int):
        return (
            f"{where}, but data.classes={classes} (labels 0..{classes - 1}). Correct one of the two"
        )
    given = "the labels of data.path" if classes is None else "data.classes"
    shown = ", ".join(class_names[:8]) + (", ..." if len(class_names) > 8 else "")
    hint = did_you_mean(row.label, class_names)
    return f"{where} is not among {given} ({shown}). Correct one of the two{hint}"
