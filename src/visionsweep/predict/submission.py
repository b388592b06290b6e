"""The submission: its rows and the image of each, checked before anything is predicted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from visionsweep.data.table import TableFile, check_not_empty, nfc, open_table
from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.images import FoundImages, ImageFile
from visionsweep.text import counted

# Names of the column with the labels, in lower case.
LABEL_COLUMNS = frozenset(
    {"label", "labels", "target", "class", "prediction", "predicted", "category", "answer", "ans"}
)

# How an id of a sample may name an image, the strictest first.
NAMINGS: dict[str, Callable[[str], str]] = {
    "relative path": lambda name: str(PurePosixPath(name)),
    "file name": lambda name: PurePosixPath(name).name,
    "file name without its suffix": lambda name: PurePosixPath(name).stem,
}


@dataclass(frozen=True)
class Template:
    """A submission without its labels: row i belongs to image i."""

    header: list[str]  # distinct names
    ids: list[str]
    images: list[ImageFile]
    id: str  # the column of the ids
    label: str | None  # that of the labels; None if no column is known to be it
    sample: TableFile | None = None  # has the other cells, read again row by row

    @property
    def separator(self) -> str:
        """Between the cells."""
        return "," if self.sample is None else self.sample.separator

    def rows(self) -> Iterator[list[str]]:
        """Yield the cells of each row. Raises `DataError` if the sample changed since it was read.

        A sample with a column per class is larger than all the rest, so it is not kept in memory.
        """
        if self.sample is None:
            for name in self.ids:
                yield [name if column == self.id else "" for column in self.header]
            return
        index = self.header.index(self.id)
        new_cells = [""] * (len(self.header) - len(self.sample.header))
        for name, numbered in zip_longest(self.ids, self.sample.rows()):
            if numbered is None or numbered[1][index] != name:
                raise DataError(
                    f"sample: {self.sample.path} has changed since it was read; start again"
                )
            yield numbered[1] + new_cells

    def class_columns(self, class_names: Sequence[str]) -> list[str]:
        """Return the columns of the sample that are named as the classes, in their order.

        Upper and lower case count only where it makes a difference. The list is empty if one column
        holds the label. Raises `ConfigError` if it is not clear which one.
        """
        columns = [name for name in self.header if name != self.id and name.strip()]
        for spelling in (str, str.casefold):
            column_of = {spelling(column): column for column in columns}
            found = [column_of.get(spelling(name)) for name in class_names]
            matched = [column for column in found if column is not None]
            if len(set(matched)) == len(class_names) == len(columns):
                return matched
        looks_like_classes = sum(any(name in column for name in class_names) for column in columns)
        if self.label is None or looks_like_classes > 1:
            raise ConfigError(
                f"label_column: the sample has the columns {', '.join(self.header)}; say which one "
                "holds the label, or name one column per class exactly as the classes: "
                f"{', '.join(class_names)}"
            )
        return []

    def check_new_columns(self, columns: Sequence[str]) -> None:
        """Raise `ConfigError` if the sample has one of the new columns already."""
        for column in columns:
            if column in self.header:
                raise ConfigError(
                    f"probabilities: the sample already has a column '{column}'; "
                    "rename or remove it"
                )


def make_template(
    found: FoundImages,
    sample: Path | None,
    id_column: str | None,
    label_column: str | None,
    *,
    needs_all: bool = True,
) -> Template:
    """Return the rows of the sample, in its order; without one, a row per image.

    A CSV file with the images gives its own order and its own cells as ids. Images of a folder are
    sorted by file name, or by path if names repeat.

    Raises `ConfigError` for a column that does not exist, and `DataError` unless each id belongs to
    exactly one image and each image to exactly one id. Without ``needs_all`` an id without an image
    gets one that is not there.
    """
    if sample is not None:
        table = open_table("sample", sample)
        return _from_sample(found, table, id_column, label_column, needs_all=needs_all)
    header = [id_column or "id", label_column or "label"]
    _check_two_columns(*header)
    images = found.images
    ids = [image.name for image in images]
    if found.is_table:
        _check_unique(ids, "data.predict", "remove the repeated rows")
    else:
        file_names = [PurePosixPath(name).name for name in ids]
        ids = file_names if len(set(file_names)) == len(ids) else ids
        ordered = sorted(zip(ids, images, strict=True), key=lambda pair: pair[0])
        ids, images = [name for name, _ in ordered], [image for _, image in ordered]
    return Template(header, ids, images, header[0], header[1])


def _from_sample(
    found: FoundImages,
    table: TableFile,
    id_column: str | None,
    label_column: str | None,
    *,
    needs_all: bool,
) -> Template:
    header = list(table.header)
    if len(header) == 1 and label_column != header[0]:  # a list of ids: the label is a new column
        header.append(label_column or "label")
    _check_distinct(header, table.path)
    if id_column is None:
        id_column = _guess_id(header, label_column)
    if label_column is None:
        label_column = _guess_label(header, id_column)
    id_index = table.index("id_column", id_column)
    if label_column is not None:
        _check_two_columns(id_column, label_column)
        if label_column not in header[len(table.header) :]:
            table.index("label_column", label_column)
    ids = [row[id_index] for _, row in table.rows()]
    check_not_empty(table, len(ids))
    _check_unique([_normal(name) for name in ids], "sample", "remove the repeated rows")
    matched = _match(ids, found, table.path, needs_all=needs_all)
    return Template(header, ids, matched, id_column, label_column, table)


def _check_distinct(header: Sequence[str], path: Path) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(
            f"sample: {path} has more than one column '{repeated[0]}'; rename all but one"
        )


def _guess_id(header: Sequence[str], label_column: str | None) -> str:
    """Return the first column that may hold ids: one without a name is an index."""
    others = [name for name in header if name != label_column]
    return next((name for name in others if name.strip()), others[0])


def _guess_label(header: Sequence[str], id_column: str) -> str | None:
    """Return the column of a usual name, or the only one besides the ids."""
    others = [name for name in header if name != id_column and name.strip()]
    named = [name for name in others if name.strip().lower() in LABEL_COLUMNS]
    return next(iter(named), others[0] if len(others) == 1 else None)


def _check_two_columns(id_column: str, label_column: str) -> None:
    if id_column == label_column:
        raise ConfigError(
            f"label_column: expected a different column from id_column, got '{label_column}' twice"
        )


def _check_unique(ids: Sequence[str], key: str, remedy: str) -> None:
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            f"{key}: {counted(len(repeated), 'id')} not unique, {_examples(repeated)}; {remedy}"
        )


def _match(
    ids: Sequence[str], found_images: FoundImages, sample: Path, *, needs_all: bool
) -> list[ImageFile]:
    """Return the image of each id, by the naming that fits most ids (the strictest of them)."""
    images = found_images.images
    best: dict[str, list[ImageFile]] = {}
    best_naming, best_count = "", -1
    for naming, name_of in NAMINGS.items():
        found: dict[str, list[ImageFile]] = defaultdict(list)
        for image in images:
            found[_normal(name_of(image.name))].append(image)
        count = sum(_normal(name) in found for name in ids)
        if count > best_count:
            best, best_naming, best_count = found, naming, count
    missing = [name for name in ids if _normal(name) not in best]
    if missing and (needs_all or len(missing) == len(ids)):
        raise DataError(
            f"sample: data.predict has no image for {len(missing):,} of {counted(len(ids), 'id')} "
            f"of {sample}, {_examples(missing)} (compared by {best_naming}); "
            "correct data.predict or id_column"
        )
    unclear = [name for name in ids if len(best.get(_normal(name), ())) > 1]
    if unclear:
        names = " and ".join(image.name for image in best[_normal(unclear[0])][:2])
        raise DataError(
            f"sample: {counted(len(unclear), 'id')} with more than one image, "
            f"e.g. '{unclear[0]}' fits {names}; "
            "remove all but one of them, or write relative paths as ids"
        )
    matched = [
        best[_normal(name)][0] if _normal(name) in best else found_images.absent(name)
        for name in ids
    ]
    used = {image.path for image in matched}
    extra = [image.name for image in images if image.path not in used]
    if extra:
        raise DataError(
            f"sample: {sample} has {counted(len(ids), 'row')} for {counted(len(images), 'image')}: "
            f"{len(extra):,} without a row, {_examples(extra)}; remove those images, or list the "
            "others with data.predict=CSV data.root=FOLDER"
        )
    return matched


def _normal(name: str) -> str:
    return nfc(name.strip())


def _examples(names: Sequence[str]) -> str:
    return "e.g. " + ", ".join(f"'{name}'" for name in names[:3])
