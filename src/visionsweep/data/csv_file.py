"""Images listed in a CSV file: one row per image, columns found by their names."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from visionsweep.data.cache import Streaming
from visionsweep.data.dataset import ALWAYS_TRAIN, MAX_PIXELS, ImageDataset
from visionsweep.data.file_finder import FileFinder
from visionsweep.data.findings import OnBadImage
from visionsweep.data.folders import PART_NAMES, part_in_name
from visionsweep.data.labels import explain_classes, sorted_class_names, warn_empty_classes
from visionsweep.data.parts import ImageFiles, LoadSettings, load_parts
from visionsweep.data.paths import require_file, require_folder
from visionsweep.data.preprocessing import Fit, make_preprocessing
from visionsweep.data.table import Table, nfc, read_table
from visionsweep.errors import ConfigError, DataError
from visionsweep.text import counted, did_you_mean

logger = logging.getLogger(__name__)

Column = str | int
TEST = "test"
_PARTS: dict[str, int | str] = {"train": ALWAYS_TRAIN, "validation": 0, "test": TEST}


@dataclass(frozen=True)
class _Row:
    line: int  # in the file, for messages
    image: str
    label: str
    group: str | None
    part: int | str  # a fold, ALWAYS_TRAIN or TEST


@dataclass(frozen=True)
class _Columns:
    """Which columns hold what, as ``data.*`` says."""

    image: Column
    label: Column | Sequence[Column]
    group: Column | None
    split: Column | None


def load_csv(
    path: str | None,
    label: Column | Sequence[Column] | None,
    image_size: int | Sequence[int],
    image: Column = "path",
    group: Column | None = None,
    root: str | None = None,
    test_path: str | None = None,
    split_column: Column | None = None,
    classes: Sequence[str | int] | int | None = None,
    keep_labels: Sequence[str | int] | None = None,
    drop_labels: Sequence[str | int] | None = None,
    separator: str | None = None,
    suffix: str | None = None,
    channels: int = 3,
    fit: Fit = "crop",
    levels: Literal["auto"] | Sequence[float] = "auto",
    background: str | Sequence[int] = "white",
    max_pixels: int | None = MAX_PIXELS,
    near_duplicates: int | None = None,
    on_bad_image: OnBadImage = "error",
    cache_dir: str | None = None,
    cache_limit_gb: float | None = None,
    workers: int | None = None,
    flips: bool = True,
) -> ImageDataset:
    """Return the images that the CSV file `path` lists.

    `image`, `label`, `group` and `split_column` name columns; several `label` columns hold a 1 for
    the class and 0 otherwise. Images are looked up below `root`, by default the CSV file's own
    folder. `classes` lists the classes in order, or gives their number for labels 0..n-1; by
    default they are the labels that occur, integers by value. The official test split is a second
    CSV file, `test_path`, or the rows that `split_column` calls test. Raises ConfigError or
    DataError naming file and line.
    """
    settings = LoadSettings(
        make_preprocessing(image_size, channels, fit, levels, background, max_pixels),
        on_bad_image,
        cache_dir,
        near_duplicates,
        Streaming(cache_limit_gb, workers),
    )
    table_path = require_file("data.path", path, "the CSV file with one row per image")
    if label is None or label in ("", []):
        raise ConfigError("data.label is not set: give the name of the column with the labels")
    columns = _Columns(image, label, group, split_column)
    base = None if root is None else require_folder("data.root", root, "the folder of the images")
    rows = _read_rows(read_table("data.path", table_path, separator), columns)
    rows = _select(rows, keep_labels, drop_labels)
    class_names = _class_names(classes, rows)
    _warn_joined_labels(class_names)
    reader = _FileReader(class_names, classes, base, suffix, skips=on_bad_image != "error")
    train_rows = [row for row in rows if row.part != TEST]
    test_rows, test_table = [row for row in rows if row.part == TEST], table_path
    if test_path is not None:
        if test_rows:
            raise ConfigError(
                f"data.test_path: data.split_column={split_column} has {len(test_rows):,} test "
                "rows already; leave out one of the two"
            )
        test_table = require_file(
            "data.test_path", test_path, "a CSV file with the columns of data.path"
        )
        test_columns = _Columns(image, label, group, None)
        test_rows = _read_rows(read_table("data.test_path", test_table, separator), test_columns)
        test_rows = _select(test_rows, keep_labels, drop_labels, is_test=True)
    files = reader.read(train_rows, table_path)
    test_files = reader.read(test_rows, test_table) if test_rows else None
    key = "data.path" if test_path is None else "data.test_path"
    if test_files is not None:
        _check_groups(files, test_files, key)
    logger.info("%s", _explain(class_names, files, test_files))
    parts = load_parts(files, test_files, settings, key=key, class_names=class_names)
    warn_empty_classes(class_names, parts.train.targets, str(table_path))
    return ImageDataset(
        name=table_path.name.split(".")[0],
        class_names=class_names,
        train=parts.train,
        preprocessing=parts.preprocessing,
        test=parts.test,
        flips=flips,
        bad_images=reader.missing + parts.bad,
    )


# -- rows


def _read_rows(table: Table, columns: _Columns) -> list[_Row]:
    image = table.index("data.image", columns.image)
    group = None if columns.group is None else table.index("data.group", columns.group)
    split = None if columns.split is None else table.index("data.split_column", columns.split)
    one_hot = None if isinstance(columns.label, str | int) else columns.label
    names = [columns.label] if isinstance(columns.label, str | int) else columns.label
    labels = [table.index("data.label", name) for name in names]
    rows = []
    for line, cells in zip(table.lines, table.rows, strict=True):
        values = [cell.strip() for cell in cells]
        needed = {"data.image": image, "data.group": group}
        if one_hot is None:
            needed["data.label"] = labels[0]
        for key, index in needed.items():
            if index is not None and not values[index]:
                raise DataError(
                    f"{table.path} line {line}: column {table.header[index]} ({key}) is empty. "
                    "Fill it in, or remove the row"
                )
        rows.append(
            _Row(
                line,
                values[image],
                nfc(
                    values[labels[0]] if one_hot is None else _one_hot(table, line, values, labels)
                ),
                None if group is None else nfc(values[group]),
                ALWAYS_TRAIN if split is None else _part(table, line, values[split], split),
            )
        )
    if split is not None:
        _check_parts(table, rows, split)
    return rows


def _one_hot(table: Table, line: int, values: Sequence[str], labels: Sequence[int]) -> str:
    """Return the name of the only column that holds 1."""
    chosen = [index for index in labels if _as_number(values[index]) == 1]
    others = [index for index in labels if _as_number(values[index]) not in (0, 1)]
    if len(chosen) != 1 or others:
        shown = ", ".join(f"{table.header[index]}={values[index]}" for index in labels[:8])
        raise DataError(
            f"{table.path} line {line}: expected 1 in one of the columns of data.label and 0 in "
            f"the others, got {shown}"
        )
    return table.header[chosen[0]]


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _part(table: Table, line: int, cell: str, column: int) -> int | str:
    """Return the part of a row: a word such as train, a fold's number, or whether it is in one."""
    word = cell.lower()
    part = PART_NAMES.get(word)
    if word in ("true", "false"):  # a column such as is_valid
        named = part_in_name(table.header[column])
        if named is not None:
            part = named if word == "true" else "train"
    if part is not None:
        return _PARTS[part]
    if word.isdecimal() or word == str(ALWAYS_TRAIN):
        return int(word)
    raise DataError(
        f"{table.path} line {line}: {table.header[column]}={cell} (data.split_column): expected "
        "train, validation, test or the number of a fold"
    )


def _check_parts(table: Table, rows: Sequence[_Row], column: int) -> None:
    if all(row.part == TEST for row in rows):
        raise DataError(f"{table.path}: data.split_column leaves no row for training")
    if all(row.part in (ALWAYS_TRAIN, TEST) for row in rows):
        return
    words = {row[column].strip().lower() for row in table.rows} - {str(ALWAYS_TRAIN)}
    has_words = any(PART_NAMES.get(word) == "validation" for word in words)
    if has_words and any(word.isdecimal() for word in words):
        raise DataError(
            f"{table.path}: column {table.header[column]} (data.split_column) mixes the word for "
            "validation with numbers of folds; use one of them"
        )


def _select(
    rows: list[_Row],
    keep: Sequence[str | int] | None,
    drop: Sequence[str | int] | None,
    *,
    is_test: bool = False,
) -> list[_Row]:
    """Return the rows with the wanted labels; a label that no row has is an error."""
    labels = {row.label for row in rows}
    for key, given in (("keep_labels", keep), ("drop_labels", drop)):
        unknown = [str(name) for name in given or () if nfc(str(name)) not in labels]
        if unknown and not is_test:
            raise ConfigError(
                f"data.{key}: no row has the label {unknown[0]}"
                f"{did_you_mean(unknown[0], sorted(labels))}"
            )
    kept = labels if keep is None else {nfc(str(name)) for name in keep}
    kept = kept - {nfc(str(name)) for name in drop or ()}
    selected = [row for row in rows if row.label in kept]
    if len(selected) < len(rows):
        logger.info(
            "left out %s by their label%s",
            counted(len(rows) - len(selected), "row"),
            " (test)" if is_test else "",
        )
    return selected


# -- classes


def _class_names(classes: Sequence[str | int] | int | None, rows: Sequence[_Row]) -> list[str]:
    if classes is None:
        names = sorted_class_names(row.label for row in rows)
    elif isinstance(classes, int):
        names = [str(index) for index in range(classes)]
    else:
        names = [nfc(str(name)) for name in classes]
    if len(set(names)) != len(names):
        raise ConfigError(f"data.classes: expected distinct names, got {names}")
    if len(names) < 2:
        raise DataError(
            f"data.label: expected at least 2 classes, got {len(names)} ({', '.join(names)})"
        )
    return names


def _warn_joined_labels(class_names: Sequence[str]) -> None:
    """Warn of labels made of other labels, such as ``cat|dog``: several labels per image."""
    names = set(class_names)
    joined = [
        name
        for name in class_names
        if len(pieces := re.split(r"[\s,;|]+", name)) > 1 and names.issuperset(pieces)
    ]
    if joined:
        logger.warning(
            "data.label: %s made of other labels, e.g. %r. Each is a class of its own: several "
            "labels per image are not supported",
            "1 label is" if len(joined) == 1 else f"{len(joined)} labels are",
            joined[0],
        )


# -- files


class _FileReader:
    """Turns rows into files with class numbers; DataError names the line of a bad one."""

    def __init__(
        self,
        class_names: Sequence[str],
        classes: Sequence[str | int] | int | None,
        base: Path | None,
        suffix: str | None,
        *,
        skips: bool,
    ) -> None:
        self._class_names = class_names
        self._classes = classes
        self._base = base
        self._suffix = suffix
        self._skips = skips
        self.missing: list[str] = []  # the files left out by on_bad_image=skip

    def read(self, rows: Sequence[_Row], table: Path) -> ImageFiles:
        numbers = {name: number for number, name in enumerate(self._class_names)}
        finder = FileFinder(self._base or table.parent, self._suffix)
        lines: dict[Path, int] = {}
        found, missing = [], []
        for row in rows:
            if row.label not in numbers:
                raise DataError(_explain_label(row, table, self._class_names, self._classes))
            path = finder.find(row.image)
            if path is None:
                missing.append(row)
                continue
            if path in lines:
                raise DataError(
                    f"{table} line {row.line}: {row.image} is in line {lines[path]} too, so it "
                    "could be in train and val at once. Remove one (trainer.sampler can repeat "
                    "rare classes)"
                )
            lines[path] = row.line
            found.append(row)
        self._report(missing, len(rows), table, finder)
        return ImageFiles(
            paths=list(lines),
            ids=[row.image for row in found],
            targets=[numbers[row.label] for row in found],
            groups=[row.group for row in found if row.group is not None] or None,
            folds=_folds(found),
        )

    def _report(self, missing: Sequence[_Row], total: int, table: Path, finder: FileFinder) -> None:
        if not missing:
            return
        first = missing[0]
        problem = (
            f"{table}: {len(missing):,} of {counted(total, 'image')} not found, e.g. "
            f"{finder.path_of(first.image)} (line {first.line})"
        )
        if self._skips and len(missing) < total:
            logger.warning("%s; left out", problem)
            self.missing += [str(finder.path_of(row.image)) for row in missing]
            return
        raise DataError(
            f"{problem}. Correct the rows, set data.root to the folder of the images, or "
            "data.on_bad_image=skip to leave them out"
        )


def _folds(rows: Sequence[_Row]) -> list[int] | None:
    folds = [row.part for row in rows if isinstance(row.part, int)]
    return folds if any(fold != ALWAYS_TRAIN for fold in folds) else None


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


def _check_groups(train: ImageFiles, test: ImageFiles, key: str) -> None:
    shared = sorted(set(train.groups or ()) & set(test.groups or ()))
    if shared:
        num_images = sum(group in set(shared) for group in test.groups or ())
        raise DataError(
            f"{key}: {counted(len(shared), 'group')} of data.group in training and test, e.g. "
            f"{shared[0]} ({num_images:,} of {len(test.paths):,} test images); move each group to "
            "one side"
        )


def _explain(class_names: Sequence[str], train: ImageFiles, test: ImageFiles | None) -> str:
    """Return the line that says what was read."""
    pieces = [explain_classes(class_names, Counter(train.targets))]
    if train.folds is not None:
        folds = sorted(set(train.folds) - {ALWAYS_TRAIN})
        if len(folds) == 1:
            pieces.append(f"validation: {train.folds.count(folds[0]):,} of them")
        else:
            pieces.append(f"folds: {', '.join(map(str, folds))}")
    if test is not None:
        pieces.append(f"test: {len(test.paths):,} images")
    return "; ".join(pieces)
