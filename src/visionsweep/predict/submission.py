"""The submission: which rows it has and which image belongs to each, decided and checked before any prediction."""

import csv
import io
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from visionsweep.errors import ConfigError, DataError
from visionsweep.predict.images import ImageFile
from visionsweep.predict.table import Table, read_table

# How an id of a sample may name an image, the strictest first.
NAMINGS: dict[str, Callable[[str], str]] = {
    "relative path": str,
    "file name": lambda name: PurePosixPath(name).name,
    "file name without its suffix": lambda name: PurePosixPath(name).stem,
}


@dataclass(frozen=True)
class Template:
    """A submission without its labels: row i belongs to image i."""

    header: list[str]
    rows: list[list[str]]
    images: list[ImageFile]
    label_index: int

    def class_columns(self, class_names: Sequence[str]) -> list[int] | None:
        """Return where the sample wants each class's probability, or None unless it has one column a class."""
        if len(self.header) != len(class_names) + 1 or not set(class_names) <= set(self.header):
            return None
        return [self.header.index(name) for name in class_names]

    def seems_to_want_classes(self, class_names: Sequence[str]) -> bool:
        """Return whether two columns or more are named after classes, such as P_cat and P_dog."""
        columns = self.header[1:]
        return sum(any(name in column for name in class_names) for column in columns) > 1

    def check_new_columns(self, columns: Sequence[str]) -> None:
        """Raise `ConfigError` if a column to be added is there already."""
        for column in columns:
            if column in self.header:
                raise ConfigError(
                    f"probabilities: the sample has a column '{column}' already; rename or remove it"
                )


def make_template(
    images: Sequence[ImageFile],
    sample: Path | None,
    id_column: str | None,
    label_column: str | None,
) -> Template:
    """Return the rows of the sample file in its order or, without one, a row an image sorted by file name.

    Raises `ConfigError` for a column that is not there, and `DataError` unless ids are unique and ids and images
    belong together one to one.
    """
    if sample is not None:
        return _from_sample(images, read_table("sample", sample), id_column, label_column)
    header = [id_column or "id", label_column or "label"]
    _check_two_columns(*header)
    ids = [PurePosixPath(image.name).name for image in images]
    _check_unique(ids, "data.predict", "name them by relative path in a sample file (sample=...)")
    ordered = sorted(zip(ids, images, strict=True), key=lambda pair: pair[0])
    return Template(
        header, [[name, ""] for name, _ in ordered], [image for _, image in ordered], label_index=1
    )


def _from_sample(
    images: Sequence[ImageFile], table: Table, id_column: str | None, label_column: str | None
) -> Template:
    header, rows = list(table.header), [list(row) for row in table.rows]
    if len(header) == 1 and label_column != header[0]:  # a list of ids: the label is a new column
        header.append(label_column or "label")
        rows = [[*row, ""] for row in rows]
        table = Table(table.path, header, rows)
    if id_column is None:
        id_column = next(name for name in header if name != label_column)
    if label_column is None:
        label_column = next(name for name in header if name != id_column)
    _check_two_columns(id_column, label_column)
    id_index, label_index = (
        table.index("id_column", id_column),
        table.index("label_column", label_column),
    )
    ids = [row[id_index] for row in rows]
    _check_unique([_normal(name) for name in ids], "sample", "remove the repeated rows")
    return Template(header, rows, _match(ids, images, table.path), label_index)


def _check_two_columns(id_column: str, label_column: str) -> None:
    if id_column == label_column:
        raise ConfigError(
            f"label_column: expected another column than id_column, got '{label_column}' for both"
        )


def _check_unique(ids: Sequence[str], key: str, remedy: str) -> None:
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            f"{key}: {len(repeated):,} ids stand more than once, {_examples(repeated)}; {remedy}"
        )


def _match(ids: Sequence[str], images: Sequence[ImageFile], sample: Path) -> list[ImageFile]:
    """Return the image of each id, by the first naming that knows the most ids."""
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
            f"sample: {len(missing):,} of {len(ids):,} ids of {sample} have no image in data.predict, "
            f"{_examples(missing)} (compared by {best_naming}); correct data.predict or id_column"
        )
    unclear = [name for name in ids if len(best[_normal(name)]) > 1]
    if unclear:
        names = " and ".join(image.name for image in best[_normal(unclear[0])][:2])
        raise DataError(
            f"sample: {len(unclear):,} ids fit more than one image, e.g. '{unclear[0]}' fits {names}; "
            "remove all but one of them, or write relative paths as ids"
        )
    matched = [best[_normal(name)][0] for name in ids]
    used = {image.path for image in matched}
    extra = [image.name for image in images if image.path not in used]
    if extra:
        raise DataError(
            f"sample: {sample} has {len(ids):,} rows for {len(images):,} images: {len(extra):,} have none, "
            f"{_examples(extra)}; remove them, or name the wanted images with data.predict=CSV data.root=FOLDER"
        )
    return matched


def _normal(name: str) -> str:
    """Return one spelling of `name`: macOS may store letters with accents, or Hangul, as several characters."""
    return unicodedata.normalize("NFC", name.strip())


def _examples(names: Sequence[str]) -> str:
    return "e.g. " + ", ".join(f"'{name}'" for name in names[:3])


def render(
    template: Template, labels: Sequence[str], columns: Sequence[str], probabilities: Tensor
) -> str:
    """Return the submission as CSV text; ``probabilities``, (N, K), fill new ``columns`` unless there is none."""
    rows = []
    for row, label, probs in zip(template.rows, labels, probabilities.tolist(), strict=True):
        cells = list(row)
        cells[template.label_index] = label
        rows.append([*cells, *map(_cell, probs[: len(columns)])])
    return _csv([*template.header, *columns], rows)


def render_class_columns(template: Template, indices: Sequence[int], probabilities: Tensor) -> str:
    """Return the submission as CSV text, the (N, K) probabilities in the sample's own columns at ``indices``."""
    rows = []
    for row, probs in zip(template.rows, probabilities.tolist(), strict=True):
        cells = list(row)
        for index, probability in zip(indices, probs, strict=True):
            cells[index] = _cell(probability)
        rows.append(cells)
    return _csv(template.header, rows)


def _cell(probability: float) -> str:
    return f"{probability:.9g}"


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def summarize(labels: Sequence[str]) -> str:
    """Return the number of images and of each predicted class, the most frequent first."""
    counts = Counter(labels).most_common()
    shown = ", ".join(f"{label}: {count:,}" for label, count in counts[:10])
    rest = f", {len(counts) - 10:,} more classes" if len(counts) > 10 else ""
    return f"{len(labels):,} images ({shown}{rest})"
