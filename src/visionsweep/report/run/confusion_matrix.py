"""The confusion matrix, and its picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import DARK, GRAY, new_figure, save_png, short_name

MAX_COUNTED_CLASSES = 20  # with more, a count no longer fits into its cell
MAX_NAMED_CLASSES = 50

_SCALE_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)


def confusion_matrix(
    preds: NDArray[np.int64], targets: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Return the (K, K) counts: rows are targets, columns are predictions."""
    counts = np.bincount(targets * num_classes + preds, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def draw_confusion_matrix(
    matrix: NDArray[np.int64], class_names: Sequence[str], path: Path
) -> None:
    """Draw a (K, K) matrix of counts; rows are targets and columns predictions.

    Colour is the share of the row, so the diagonal is the recall. The scale is a square root, to
    show rare mistakes among many classes. A row without samples is gray. Up to 20 classes have
    their counts in the cells, up to 50 all have names, and with more every n-th has.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    num_classes = len(class_names)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    shown = range(0, num_classes, -(-num_classes // MAX_NAMED_CLASSES))
    names = [short_name(class_names[i]) for i in shown]
    side = float(np.clip(0.52 * num_classes, 3.0, 9.5))
    name_width = 0.075 * max(map(len, names))
    is_upright = name_width > 0.9 * side / len(names)

    figure = new_figure(side + name_width + 1.6, side + (name_width if is_upright else 0.2) + 0.7)
    axes = figure.add_subplot()
    colors = colormaps["Blues"].with_extremes(bad="#e6e6e6")
    image = axes.imshow(shares, cmap=colors, norm=PowerNorm(0.5, 0, 1))
    size = 9 if num_classes <= MAX_COUNTED_CLASSES else 7
    axes.set_xticks(shown, names, rotation=90 if is_upright else 0, fontsize=size)
    axes.set_yticks(shown, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="target")
    axes.spines[:].set(visible=True, color=GRAY)
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{right:,} of {total:,} validation images correct")
    if num_classes <= MAX_COUNTED_CLASSES:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            count = int(matrix[row, column])
            color = "white" if shares[row, column] > 0.4 else DARK
            size = 9 if count < 1000 else 7
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=size)
    scale = figure.colorbar(image, ticks=_SCALE_TICKS, fraction=0.04, pad=0.02)
    scale.ax.set_yticklabels([f"{tick:g}" for tick in _SCALE_TICKS])
    scale.set_label("share of the target class")
    scale.outline.set_visible(False)
    save_png(figure, path)
