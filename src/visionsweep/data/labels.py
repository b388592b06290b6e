"""Class labels: their range, their order, and classes without an image."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from visionsweep.errors import DataError

logger = logging.getLogger(__name__)

MAX_SHOWN = 10


def check_labels(targets: Tensor, num_classes: int, where: str) -> None:
    """Raise DataError unless all targets, (N,) int64, lie in [0, num_classes).

    `where` names the part, such as train.
    """
    if len(targets) == 0:
        return
    lowest, highest = int(targets.min()), int(targets.max())
    if lowest < 0 or highest >= num_classes:
        label = lowest if lowest < 0 else highest
        raise DataError(
            f"label {label} in {where}, but model.num_classes={num_classes} "
            f"(labels 0..{num_classes - 1}). Correct the label, or the number of classes"
        )


def sorted_class_names(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels in class order: by value if all are integers, else naturally."""
    names = set(labels)
    if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in names):
        return sorted(names, key=int)
    return sorted(names, key=natural_key)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key by which ``img2`` comes before ``img10``."""
    pieces = re.split(r"([0-9]+)", name)
    return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in pieces], name


def explain_classes(class_names: Sequence[str], counts: Mapping[int, int]) -> str:
    """Return ``classes: cat, dog (10 / 12 images)``; with many classes, some and their total."""
    total = sum(counts.values())
    if len(class_names) > MAX_SHOWN:
        shown = ", ".join(class_names[:MAX_SHOWN])
        return f"{len(class_names)} classes: {shown}, ... ({total:,} images)"
    of_each = " / ".join(f"{counts.get(target, 0):,}" for target in range(len(class_names)))
    return f"classes: {', '.join(class_names)} ({of_each} images)"


def warn_empty_classes(class_names: Sequence[str], targets: Tensor, where: str) -> None:
    """Log a warning that names the classes without an image in `where`."""
    counts = targets.bincount(minlength=len(class_names)).tolist()
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        logger.warning(
            "%s: %d of %d classes have no image: %s (%s images in all)",
            where,
            len(empty),
            len(class_names),
            shown,
            f"{len(targets):,}",
        )
