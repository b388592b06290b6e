"""The manifest of a split, split.csv: one row per image."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visionsweep.data.dataset import ImageDataset, ImageSet
from visionsweep.data.splits import Indices
from visionsweep.errors import DataError
from visionsweep.rundir.atomic import atomic_write
from visionsweep.rundir.layout import SPLIT

_HEADER = ["split", "id", "class", "group"]


class SplitRow(NamedTuple):
    """One image of the manifest; `split` is train, val or test."""

    split: str
    id: str
    class_name: str
    group: str


def write_split(path: Path, dataset: ImageDataset, train: Indices, val: Indices) -> None:
    """Write the manifest atomically: one row per image (split, id, class, group)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows(split_rows(dataset, train, val))
    with atomic_write(path) as file:
        # A file name may be invalid UTF-8: surrogateescape keeps its bytes.
        file.write(text.getvalue().encode(errors="surrogateescape"))


def split_rows(dataset: ImageDataset, train: Indices, val: Indices) -> list[SplitRow]:
    """Return the rows of the manifest: training, validation, then the official test split."""
    rows = _rows("train", dataset.train, train, dataset.class_names)
    rows += _rows("val", dataset.train, val, dataset.class_names)
    if dataset.test is not None:
        rows += _rows("test", dataset.test, np.arange(len(dataset.test)), dataset.class_names)
    return rows


def _rows(
    name: str, image_set: ImageSet, indices: Indices, class_names: Sequence[str]
) -> list[SplitRow]:
    targets = image_set.targets.tolist()
    groups = shown_groups(image_set)
    return [
        SplitRow(
            name,
            image_set.ids[index],
            class_names[targets[index]],
            groups[index],
        )
        for index in indices.tolist()
    ]


def shown_groups(image_set: ImageSet) -> list[str]:
    """Return what each image stays together with: its group, else the first of its copies."""
    if image_set.groups is not None:
        return image_set.groups
    if image_set.copy_of is None:
        return [""] * len(image_set)
    counts = Counter(image_set.copy_of)
    return ["" if counts[first] == 1 else image_set.ids[first] for first in image_set.copy_of]


def read_split(path: Path) -> list[SplitRow]:
    """Return the rows of a manifest. Raises DataError if it is missing or not a manifest."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path} ({error}); expected the {SPLIT} of a run") from error
    if header != _HEADER or any(len(row) != len(_HEADER) for row in rows):
        raise DataError(f"{path} is not a split manifest: expected columns {','.join(_HEADER)}")
    return [SplitRow(*row) for row in rows]
