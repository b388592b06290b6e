"""The picture of a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import (
    DARK,
    GRAY,
    add_axes,
    add_title,
    name_style,
    new_figure,
    save_png,
    shortened,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COUNTED_CLASSES = 20  # with more, a count no longer fits into its cell
MAX_NAMED_CLASSES = 50

_BAR_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
_GAP = 0.06  # inches between a text and what it names


def confusion_matrix_png(
    matrix: NDArray[np.integer], class_names: Sequence[str], path: Path
) -> None:
    """Write a picture of a (K, K) matrix of counts, rows are targets and columns predictions.

    Colour is the share of a row (its diagonal is the recall), on a square-root scale so that rare mistakes can
    be seen among many classes; a row without samples is gray. Up to 20 classes the counts are written into the
    cells, up to 50 every class has its name, above that every n-th.
    """
    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"matrix of shape {matrix.shape} for {num_classes} class names")
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)

    every = 1 if num_classes <= MAX_NAMED_CLASSES else -(-num_classes // MAX_NAMED_CLASSES)
    shown = range(0, num_classes, every)
    names = [shortened(class_names[i]) for i in shown]
    size = 9.0 if num_classes <= MAX_COUNTED_CLASSES else 7.0
    side = float(np.clip(0.52 * num_classes, 2.6, 10.0))
    width = text_width(names, size)
    is_upright = width > 0.9 * side / len(names)
    left, bottom = 0.4 + width + _GAP, 0.4 + (width if is_upright else 0.15) + _GAP

    figure = new_figure(left + side + 1.1, bottom + side + 0.4)
    axes = add_axes(figure, left, bottom, side, side)
    axes.axis("off")
    axes.imshow(_colors(shares), interpolation="nearest", aspect="auto")
    _frame(axes, num_classes)
    _write_names(
        axes, shown, names, size, inches_per_class=side / num_classes, is_upright=is_upright
    )
    figure.text(
        (left + side / 2) / figure.get_figwidth(),
        0.1 / figure.get_figheight(),
        "predicted",
        ha="center",
    )
    figure.text(
        0.1 / figure.get_figwidth(),
        (bottom + side / 2) / figure.get_figheight(),
        "target",
        va="center",
        rotation=90,
    )
    right, total = int(np.trace(matrix)), int(matrix.sum())
    add_title(axes, f"{right:,} of {total:,} right")
    if num_classes <= MAX_COUNTED_CLASSES:
        _write_counts(axes, matrix, shares)
    _add_scale(figure, left + side + 0.2, bottom, side)
    save_png(figure, path)


def _colors(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (..., 3) RGB; NaN is gray."""
    from matplotlib import colormaps

    table = colormaps["Blues"](np.arange(256), bytes=True)[:, :3]
    table = np.vstack([table, np.full((1, 3), 0xE6, np.uint8)])
    level = np.where(np.isnan(shares), 256, np.nan_to_num(np.sqrt(shares)) * 255)
    colors: NDArray[np.uint8] = table[np.rint(level).astype(np.intp)]
    return colors


def _frame(axes: "Axes", num_classes: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (-0.5, -0.5),
            num_classes,
            num_classes,
            fill=False,
            edgecolor=GRAY,
            linewidth=0.8,
            clip_on=False,
        )
    )


def _write_names(
    axes: "Axes",
    shown: range,
    names: Sequence[str],
    size: float,
    *,
    inches_per_class: float,
    is_upright: bool,
) -> None:
    """Write names beside rows and under columns; as texts, since matplotlib's ticks take five times as long."""
    style = name_style(names, size)
    beside, below = -0.5 - _GAP / inches_per_class, shown.stop - 0.5 + _GAP / inches_per_class
    for index, name in zip(shown, names, strict=True):
        axes.text(beside, index, name, ha="right", va="center", **style)
        axes.text(
            index, below, name, ha="center", va="top", rotation=90 if is_upright else 0, **style
        )


def _write_counts(axes: "Axes", matrix: NDArray[np.integer], shares: NDArray[np.float64]) -> None:
    digits = len(str(int(matrix.max()))) if matrix.size else 1
    size = {1: 10, 2: 10, 3: 9, 4: 8}.get(digits, 7)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > 0.4 else DARK
        count = str(matrix[row, column])
        axes.text(
            column,
            row,
            count,
            ha="center",
            va="center",
            color=color,
            fontsize=size,
            parse_math=False,
        )


def _add_scale(figure: "Figure", left: float, bottom: float, height: float) -> None:
    """Draw the scale of the colours; a tenth of the time of matplotlib's colour bar."""
    axes = add_axes(figure, left, bottom, 0.16, height)
    axes.axis("off")
    ramp = np.linspace(0, 1, 256)[:, None] ** 2  # the colours go with the square root
    axes.imshow(
        _colors(ramp), origin="lower", extent=(0, 1, 0, 1), aspect="auto", interpolation="nearest"
    )
    for tick in _BAR_TICKS:
        axes.text(1.4, tick**0.5, f"{tick:g}", va="center", fontsize=9)
    axes.text(4.2, 0.5, "share of the target class", va="center", rotation=90, fontsize=10)
