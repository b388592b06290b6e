"""Class labels: their range, their order, and classes that no image has."""

import difflib
import logging
import re
from collections.abc import Iterable, Sequence

from torch import Tensor

from visionsweep.errors import DataError

logger = logging.getLogger(__name__)


def check_labels(targets: Tensor, num_classes: int, where: str) -> None:
    """DataError unless all targets (N,) int64 lie in [0, num_classes); `where` names the part, e.g. train."""
    if len(targets) == 0:
        return
    lowest, highest = int(targets.min()), int(targets.max())
    if lowest < 0 or highest >= num_classes:
        label = lowest if lowest < 0 else highest
        raise DataError(
            f"label {label} in {where}, but model.num_classes={num_classes} (labels 0..{num_classes - 1}). "
            "Correct the label, or the number of classes"
        )


def sorted_class_names(labels: Iterable[str]) -> list[str]:
    """Distinct labels in class order: by value when all are integers, else by name."""
    names = sorted(set(labels))
    if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in names):
        names.sort(key=int)
    return names


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


def nearest(name: str, available: Sequence[str]) -> str:
    """End of a sentence: '; did you mean X?' for the most similar available name, or a full stop."""
    # cutoff 0.5: short names with one wrong letter in two still find their neighbour
    found = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else "."
