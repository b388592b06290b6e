"""The table of a run's classes."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from visionsweep.rundir.atomic import write_text

COLUMNS = ("class", "precision", "recall", "f1", "support", "most_confused_with", "confused")


def per_class_csv(
    matrix: NDArray[np.integer],
    class_names: Sequence[str],
    path: Path,
    absent_classes: Literal["zero", "skip"] = "zero",
) -> None:
    """Write a row a class, then the macro and the weighted averages, as UTF-8 CSV.

    ``matrix``: (K, K) counts, rows are targets and columns predictions. Precision, recall and F1 in [0, 1] with
    4 digits; a ratio over 0 is 0. ``support`` is the number of targets; ``most_confused_with`` is the class that
    most of the wrongly classified targets were taken for (of equals the first), ``confused`` how many; the two
    are empty without mistakes. ``absent_classes``: see `training.metrics.classification_metrics`; "skip" leaves
    a class with neither target nor prediction out of the macro average. Raises ValueError for another shape.
    """
    class_names = [
        name.encode(errors="backslashreplace").decode() for name in class_names
    ]  # a file's odd name
    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"matrix of shape {matrix.shape} for {num_classes} class names")
    correct, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    # The numerator is 0 wherever a denominator is, so any divisor gives the 0 that is asked for.
    ratios = np.stack(
        [
            correct / np.maximum(predicted, 1),
            correct / np.maximum(support, 1),
            2 * correct / np.maximum(support + predicted, 1),
        ],
        axis=1,
    )
    wrong = matrix - np.diag(correct)
    others = wrong.argmax(axis=1)
    counts = wrong.max(axis=1)

    rows: list[list[object]] = [list(COLUMNS)]
    for index, name in enumerate(class_names):
        confusion = [class_names[others[index]], counts[index]] if counts[index] else ["", ""]
        rows.append([name, *_rounded(ratios[index]), support[index], *confusion])
    is_counted = (
        (support + predicted > 0) if absent_classes == "skip" else np.ones(num_classes, bool)
    )
    total = support.sum()
    macro = ratios[is_counted].sum(axis=0) / max(1, is_counted.sum())
    weighted = support @ ratios / max(1, total)
    rows.append(["macro avg", *_rounded(macro), total, "", ""])  # scikit-learn's names for the two
    rows.append(["weighted avg", *_rounded(weighted), total, "", ""])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _rounded(ratios: NDArray[np.float64]) -> list[str]:
    return [f"{ratio:.4f}" for ratio in ratios]
