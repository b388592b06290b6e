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


def write_per_class(
    matrix: NDArray[np.int64],
    class_names: Sequence[str],
    path: Path,
    absent_classes: Literal["zero", "skip"] = "zero",
) -> None:
    """Write one row per class, then the macro and weighted averages, as UTF-8 CSV.

    ``matrix``: (K, K) counts, rows are targets and columns predictions. Precision, recall and F1
    are in [0, 1] with 4 digits; a ratio over 0 is 0. ``support`` is the number of targets,
    ``most_confused_with`` the class that most of its wrong predictions name (the first of equal
    ones), ``confused`` their number. ``absent_classes="skip"`` leaves classes with neither target
    nor prediction out of the macro average.
    """
    # a folder's name may have bytes that are not UTF-8
    names = [name.encode(errors="backslashreplace").decode() for name in class_names]
    correct, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    # Where a denominator is 0 the numerator is too, so any divisor gives the 0 asked for.
    ratios = np.stack(
        [
            correct / np.maximum(predicted, 1),
            correct / np.maximum(support, 1),
            2 * correct / np.maximum(support + predicted, 1),
        ],
        axis=1,
    )
    wrong = matrix - np.diag(correct)
    others, counts = wrong.argmax(axis=1), wrong.max(axis=1)
    rows: list[list[object]] = [list(COLUMNS)]
    for k, name in enumerate(names):
        confusion = [names[others[k]], counts[k]] if counts[k] else ["", ""]
        rows.append([name, *_rounded(ratios[k]), support[k], *confusion])
    is_counted = (support + predicted > 0) | (absent_classes == "zero")
    total = support.sum()
    macro = ratios[is_counted].sum(axis=0) / max(1, is_counted.sum())
    weighted = support @ ratios / max(1, total)
    # scikit-learn's names
    rows.append(["macro avg", *_rounded(macro), total, "", ""])
    rows.append(["weighted avg", *_rounded(weighted), total, "", ""])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _rounded(ratios: NDArray[np.float64]) -> list[str]:
    return [f"{ratio:.4f}" for ratio in ratios]
