"""Writes the submission row by row: memory does not grow with the number of images."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO

from visionsweep.predict.infer import PredictedBatch
from visionsweep.predict.submission import Template
from visionsweep.text import counted

MAX_NAMED = 5  # bad images, and
MAX_CLASSES = 10  # classes in the summary


@dataclass(frozen=True)
class Columns:
    """Which cells of a row the predictions fill."""

    label: str | None  # the column of the labels, if there is one
    labels: Sequence[str]  # what stands there, one per class
    probabilities: Sequence[str]  # one column per class, or none
    top_k: int = 1  # labels in the column of the labels, the most probable first


@dataclass
class Written:
    """What was written."""

    counts: Counter[str] = field(default_factory=Counter)  # rows per label
    bad: list[str] = field(default_factory=list)  # the unreadable images, each with its reason
    repaired: list[str] = field(default_factory=list)  # those with missing pixels

    def summary(self) -> str:
        """Return the number of images and of each predicted class, the most frequent first."""
        counts = self.counts.most_common()
        listed = ", ".join(f"{label}: {count:,}" for label, count in counts[:MAX_CLASSES])
        rest = len(counts) - MAX_CLASSES
        more = f", {rest:,} more classes" if rest > 0 else ""
        return f"{counted(self.counts.total(), 'image')} ({listed}{more})"


def name_images(images: Sequence[str], total: int, outcome: str) -> str:
    """Return the line that counts and names some of `total` images."""
    named = ", ".join(images[:MAX_NAMED])
    rest = len(images) - MAX_NAMED
    more = f" and {rest:,} more" if rest > 0 else ""
    return f"{len(images):,} of {counted(total, 'image')} {outcome}: {named}{more}"


def write_rows(
    stream: IO[bytes],
    template: Template,
    columns: Columns,
    batches: Iterable[PredictedBatch],
    *,
    skip_bad: bool,
) -> Written:
    """Write the CSV text of the submission as UTF-8, and return what was written.

    The predictions replace the template's cells or follow them as new columns. With ``skip_bad`` an
    unreadable image has no row.
    """
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    writer = csv.writer(text, delimiter=template.separator, lineterminator="\n")
    filled = [*([columns.label] if columns.label is not None else []), *columns.probabilities]
    header = list(template.header) + [name for name in filled if name not in template.header]
    places = [header.index(name) for name in filled]
    writer.writerow(header)
    new_cells = [""] * (len(header) - len(template.header))
    written, rows, names = Written(), template.rows(), (image.name for image in template.images)
    for batch in batches:
        # of equally probable classes the first comes first
        ranked = batch.probabilities.sort(dim=1, descending=True, stable=True).indices
        for place, preds in enumerate(ranked[:, : columns.top_k].tolist()):
            row, name = next(rows) + new_cells, next(names)
            if place in batch.bad:
                written.bad.append(f"{name} ({batch.bad[place]})")
                if skip_bad:
                    continue
            if place in batch.repaired:
                written.repaired.append(f"{name} ({batch.repaired[place]})")
            written.counts[columns.labels[preds[0]]] += 1
            label = " ".join(columns.labels[pred] for pred in preds)
            cells = [label] if columns.label is not None else []
            if columns.probabilities:
                cells += [f"{value:.9g}" for value in batch.probabilities[place].tolist()]
            for index, cell in zip(places, cells, strict=True):
                row[index] = cell
            writer.writerow(row)
    next(rows, None)  # the sample must end here
    text.flush()
    text.detach()
    return written
