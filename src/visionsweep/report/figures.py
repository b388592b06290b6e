"""Pictures of one run: the confusion matrix and the learning curves.

Uses matplotlib's objects with the Agg canvas, never pyplot, so there is no global state and no display.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visionsweep.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COUNTED_CLASSES = 20  # with more, a count no longer fits into its cell
MAX_NAMED_CLASSES = 50
MAX_NAME_LENGTH = 20
BLUE, ORANGE, GRAY = "#2a6fbb", "#d9731a", "#8a8a8a"  # told apart also by the colour-blind

History = Sequence[Mapping[str, float]]


def confusion_matrix_png(matrix: NDArray[np.integer], class_names: Sequence[str], path: Path) -> None:
    """Write a picture of a (K, K) matrix of counts, rows are targets and columns predictions.

    Colour is the share of a row (its diagonal is the recall), on a square-root scale so that rare mistakes can
    be seen among many classes; a row without samples is gray. Up to 20 classes the counts are written into the
    cells, up to 50 every class has its name, above that every n-th.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"matrix of shape {matrix.shape} for {num_classes} class names")
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    names = [_shortened(name) for name in class_names]

    side = float(np.clip(0.52 * num_classes, 2.6, 10.0))
    margin = 0.9 + 0.075 * max(len(name) for name in names)
    figure = _new_figure(side + margin + 1.2, side + margin + 0.3)
    axes = figure.add_subplot()
    colors = colormaps["Blues"].with_extremes(bad="#e6e6e6")
    image = axes.imshow(shares, cmap=colors, norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    bar = figure.colorbar(image, ax=axes, label="share of the target class", fraction=0.046, pad=0.03)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])

    every = 1 if num_classes <= MAX_NAMED_CLASSES else -(-num_classes // MAX_NAMED_CLASSES)
    shown = list(range(0, num_classes, every))
    size = 9 if num_classes <= MAX_COUNTED_CLASSES else 6
    is_wide = max(len(name) for name in names) > 2
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if is_wide else 0, fontsize=size)
    axes.set_yticks(shown, [names[i] for i in shown], fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("target")
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{right:,} of {total:,} right", fontsize=11)
    if num_classes <= MAX_COUNTED_CLASSES:
        _write_counts(axes, matrix, shares)
    _save(figure, path)


def curves_png(history: History, path: Path, best_epoch: int | None = None) -> None:
    """Write the learning curves of a run: losses, F1 and learning rate over epochs, counted from 1.

    `history` has one mapping an epoch. Drawn are `train/loss` and `val/loss`, `train/f1_macro` and
    `val/f1_macro`, and `train/lr`; a panel without values is left out. `best_epoch` is counted from 1.
    """
    panels = [
        ("loss", {"train/loss": GRAY, "val/loss": BLUE}),
        ("macro F1", {"train/f1_macro": GRAY, "val/f1_macro": BLUE}),
        ("learning rate", {"train/lr": ORANGE}),
    ]
    panels = [(title, keys) for title, keys in panels if any(key in row for row in history for key in keys)]
    figure = _new_figure(4.2 * max(1, len(panels)), 3.4)
    for position, (title, keys) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), position)
        for key, color in keys.items():
            _draw_curve(axes, history, key, color)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=ORANGE, linewidth=1, linestyle=":", label=f"best: {best_epoch}")
        _dress(axes, title, num_epochs=len(history))
    _save(figure, path)


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with atomic_write(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight")


def _write_counts(axes: "Axes", matrix: NDArray[np.integer], shares: NDArray[np.float64]) -> None:
    digits = len(str(int(matrix.max()))) if matrix.size else 1
    size = {1: 10, 2: 10, 3: 9, 4: 8}.get(digits, 7)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > 0.4 else "#333333"
        count = str(matrix[row, column])
        axes.text(column, row, count, ha="center", va="center", color=color, fontsize=size)


def _draw_curve(axes: "Axes", history: History, key: str, color: str) -> None:
    points = [(epoch, row[key]) for epoch, row in enumerate(history, start=1) if key in row]
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    marker = "o" if len(points) <= 15 else None
    axes.plot(epochs, values, color=color, marker=marker, markersize=3.5, linewidth=1.6, label=key)


def _dress(axes: "Axes", title: str, num_epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, num_epochs + 0.5)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _shortened(name: str) -> str:
    """Cut a long name in its middle: what tells names apart is often at their end."""
    half = (MAX_NAME_LENGTH - 3) // 2
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:half]}...{name[-half:]}"
