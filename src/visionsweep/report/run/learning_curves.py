"""The picture of a run's learning curves."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionsweep.report.run.drawing import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    add_plot,
    add_title,
    new_figure,
    save_png,
    text_width,
    ticks_within,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 4.2, 3.4  # inches of a panel
_LEFT, _BOTTOM = 0.75, 0.5

History = Sequence[Mapping[str, float]]


def curves_png(history: History, path: Path, best_epoch: int | None = None) -> None:
    """Write the learning curves of a run: losses, F1 and learning rate over epochs, counted from 1.

    `history` has one mapping an epoch. Drawn are `train/loss` and `val/loss`, `train/f1_macro` and
    `val/f1_macro`, and `train/lr`; a panel without values is left out. `best_epoch` is counted from 1.
    """
    panels = [
        ("loss", {"train/loss": GRAY, "val/loss": BLUE}),
        ("macro F1", {"train/f1_macro": GRAY, "val/f1_macro": BLUE}),
        ("learning rate", {"train/lr": GREEN}),
    ]
    panels = [
        (title, keys)
        for title, keys in panels
        if any(key in row for row in history for key in keys)
    ]
    figure = new_figure(_WIDTH * max(1, len(panels)), _HEIGHT)
    for position, (title, keys) in enumerate(panels):
        curves = {key: _points(history, key) for key in keys}
        box = (_WIDTH * position + _LEFT, _BOTTOM, _WIDTH - _LEFT - 0.15, _HEIGHT - _BOTTOM - 0.65)
        axes = _add_panel(
            figure, box, [value for points in curves.values() for _, value in points], len(history)
        )
        add_title(axes, title, above=0.38)
        legend = []
        for key, points in curves.items():
            if points:
                marker = "o" if len(points) <= 15 else None
                axes.plot(
                    *zip(*points, strict=True),
                    color=keys[key],
                    marker=marker,
                    markersize=3.5,
                    linewidth=1.6,
                )
                legend.append((f"\u2501 {key}", keys[key]))
        if best_epoch is not None:
            axes.axvline(best_epoch, color=ORANGE, linewidth=1, linestyle=":")
            legend.append((f"\u2507 best epoch: {best_epoch}", ORANGE))
        _write_legend(axes, legend, box)
    save_png(figure, path)


def _points(history: History, key: str) -> list[tuple[int, float]]:
    return [(epoch, row[key]) for epoch, row in enumerate(history, start=1) if key in row]


def _add_panel(
    figure: "Figure",
    box: tuple[float, float, float, float],
    values: Sequence[float],
    num_epochs: int,
) -> "Axes":
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    y = (low - room, high + room)
    x = (0.5, num_epochs + 0.5)
    return add_plot(
        figure,
        box,
        x=x,
        y=y,
        xticks=ticks_within(*x, 8, is_integer=True),
        yticks=ticks_within(*y, 6),
        xlabel="epoch",
        has_grid=True,
    )


def _write_legend(
    axes: "Axes", entries: Sequence[tuple[str, str]], box: tuple[float, float, float, float]
) -> None:
    """Write the names of the curves in their colours above the panel, where they hide no curve."""
    left = 0.0
    for text, color in entries:
        axes.text(
            left / box[2],
            1 + 0.12 / box[3],
            text,
            color=color,
            fontsize=9,
            transform=axes.transAxes,
        )
        left += text_width([text], 9) + 0.18
