"""The picture of a run's learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionsweep.report.drawing import BLUE, GRAY, ORANGE, add_axes, new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, float]]


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
    width = 4.2
    figure = new_figure(width * max(1, len(panels)), 3.4)
    for position, (title, keys) in enumerate(panels):
        axes = add_axes(figure, width * position + 0.7, 0.55, width - 0.85, 2.5)
        for key, color in keys.items():
            _draw_curve(axes, history, key, color)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=ORANGE, linewidth=1, linestyle=":", label=f"best: {best_epoch}")
        _dress(axes, title, num_epochs=len(history))
    save_png(figure, path)


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
