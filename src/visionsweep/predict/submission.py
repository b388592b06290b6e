"""The submission: its rows and the image of each, checked before anything is predicted."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from visionsweep.data.table import Table, nfc, read_table
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
    rows: list[list[str]]
    images: list[ImageFile]
    id: str  # the column of the ids
    label: str | None  # that of the labels; None if no column is known to be it
    separator: str = ","

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
) -> Template:
    """Return the rows of the sample, in its order; without one, a row per image.

    A CSV file with the images gives its own order and its own cells as ids. Images of a folder are
    sorted by file name, or by path if names repeat.

    Raises `ConfigError` for a column that does not exist, and `DataError` unless each id belongs to
    exactly one image and each image to exactly one id.
    """
    if sample is not None:
        table = read_table("sample", sample)
        return _from_sample(found.images, table, id_column, label_column)
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
    return Template(header, [[name, ""] for name in ids], images, *header)


def _from_sample(
    images: Sequence[ImageFile], table: Table, id_column: str | None, label_column: str | None
) -> Template:
    header, rows = list(table.header), [list(row) for row in table.rows]
    if len(header) == 1 and label_column != header[0]:  # a list of ids: the label is a new column
        header.append(label_column or "label")
        rows = [[*row, ""] for row in rows]
        table = Table(table.path, header, rows, table.lines, table.separator)
    _check_distinct(table)
    if id_column is None:
        id_column = _guess_id(table, label_column)
    if label_column is None:
        label_column = _guess_label(table, id_column)
    id_index = table.index("id_column", id_column)
    if label_column is not None:
        _check_two_columns(id_column, label_column)
        table.index("label_column", label_column)
    ids = [row[id_index] for row in rows]
    _check_unique([_normal(name) for name in ids], "sample", "remove the repeated rows")
    matched = _match(ids, images, table.path)
    return Template(header, rows, matched, id_column, label_column, table.separator)


def _check_distinct(table: Table) -> None:
    repeated = sorted({name for name in table.header if table.header.count(name) > 1})
    if repeated:
        raise DataError(
            f"sample: {table.path} has more than one column '{repeated[0]}'; rename all but one"
        )


def _guess_id(table: Table, label_column: str | None) -> str:
    """Return the first column that may hold ids: one without a name is an index."""
    others = [name for name in table.header if name != label_column]
    return next((name for name in others if name.strip()), others[0])


def _guess_label(table: Table, id_column: str) -> str | None:
    """Return the column of a usual name, or the only one besides the ids."""
    others = [name for name in table.header if name != id_column and name.strip()]
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


def _match(ids: Sequence[str], images: Sequence[ImageFile], sample: Path) -> list[ImageFile]:
    """Return the image of each id, by the naming that fits most ids (the strictest of them)."""
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
    if missing:
        raise DataError(
            f"sample: data.predict has no image for {len(missing):,} of {counted(len(ids), 'id')} "
            f"of {sample}, {_examples(missing)} (compared by {best_naming}); "
            "correct data.predict or id_column"
        )
    unclear = [name for name in ids if len(best[_normal(name)]) > 1]
    if unclear:
        names = " and ".join(image.name for image in best[_normal(unclear[0])][:2])
        raise DataError(
            f"sample: {counted(len(unclear), 'id')} with more than one image, "
            f"e.g. '{unclear[0]}' fits {names}; "
            "remove all but one of them, or write relative paths as ids"
        )
    matched = [best[_normal(name)][0] for name in ids]
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


def probability_columns(names: Sequence[str], probabilities: Tensor) -> dict[str, list[str]]:
    """Return one column of cells per name, from the (N, K) probabilities; no name, no column."""
    columns = zip(names, probabilities.T.tolist(), strict=False)
    return {name: [f"{value:.9g}" for value in values] for name, values in columns}


def render(template: Template, columns: Mapping[str, Sequence[str]]) -> str:
    """Return the submission as CSV text: ``columns`` replace the template's or follow them."""
    filled = {name: [row[i] for row in template.rows] for i, name in enumerate(template.header)}
    filled.update({name: list(cells) for name, cells in columns.items()})
    stream = io.StringIO()
    rows = zip(*filled.values(), strict=True)
    csv.writer(stream, delimiter=template.separator, lineterminator="\n").writerows(
        [list(filled), *rows]
    )
    return stream.getvalue()


def summarize(labels: Sequence[str]) -> str:
    """Return the number of images and of each predicted class, the most frequent first."""
    counts = Counter(labels).most_common()
    listed = ", ".join(f"{label}: {count:,}" for label, count in counts[:10])
    rest = f", {len(counts) - 10:,} more classes" if len(counts) > 10 else ""
    return f"{counted(len(labels), 'image')} ({listed}{rest})"
