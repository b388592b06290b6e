"""The learning curves of a run."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from visionsweep.report.run.drawing import BLUE, GRAY, GREEN, ORANGE, new_figure, save_png

_PANELS: dict[str, dict[str, str]] = {
    "loss": {"train/loss": GRAY, "val/loss": BLUE},
    "macro F1": {"train/f1_macro": GRAY, "val/f1_macro": BLUE},
    "learning rate": {"train/lr": GREEN},
}
_MAX_MARKED_EPOCHS = 15

Curves = dict[str, dict[int, float]]  # metric -> epoch -> value


def read_curves(records: Iterable[Mapping[str, Any]]) -> Curves:
    """Return the metrics of a run's journal by epoch, which counts from 1.

    A resumed run may have an epoch twice; the later one counts.
    """
    curves: Curves = defaultdict(dict)
    for record in records:
        if record["type"] == "metrics":
            for name, value in record["values"].items():
                curves[name][record["step"]] = float(value)  # the journal has NaN as a string
    return curves


def draw_learning_curves(curves: Curves, path: Path, best_epoch: int | None = None) -> None:
    """Draw losses, macro F1 and learning rate over epochs; a panel without values is left out."""
    from matplotlib.ticker import MaxNLocator

    panels = {title: keys for title, keys in _PANELS.items() if keys.keys() & curves.keys()}
    figure = new_figure(4.2 * max(1, len(panels)), 3.4)
    for position, (title, colors) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), position)
        for key, color in colors.items():
            if key in curves:
                epochs, values = zip(*sorted(curves[key].items()), strict=True)
                marker = "o" if len(epochs) <= _MAX_MARKED_EPOCHS else None
                axes.plot(epochs, values, color=color, marker=marker, markersize=3.5, label=key)
        if best_epoch is not None:
            label = f"best epoch: {best_epoch}"
            axes.axvline(best_epoch, color=ORANGE, linewidth=1, linestyle=":", label=label)
        axes.set(xlabel="epoch")
        axes.set_title(title, pad=24)
        axes.grid(True)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        # above the panel, where it hides no curve
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            borderaxespad=0.2,
            columnspacing=1,
            handlelength=1.2,
            borderpad=0,
        )
    save_png(figure, path)
