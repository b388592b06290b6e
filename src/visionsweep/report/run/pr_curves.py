"""Precision-recall curves, one class against the rest, and their average precision.

Own NumPy code: importing scikit-learn costs 3 s, and its curve of one class sorts all the samples with their indices.
Here a class is looked at only where its curve can rise, at the scores of its own samples.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import (
    BLUE,
    DARK,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    add_plot,
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

MAX_CURVES = 10

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
_MAX_POINTS = 300  # of a curve; the panel is 440 pixels wide
_SIDE = 4.0  # inches
_LINE_HEIGHT = 0.22  # inches, of the legend

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def average_precisions(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return (K,) average precision of each class against the rest; NaN for a class without targets.

    ``probabilities``: (N, K), any scores; ``targets``: (N,) in [0, K). The same as scikit-learn's
    `average_precision_score`: the sum over thresholds of (R_n - R_{n-1}) P_n. Recall grows only where the threshold
    is the score of a sample of the class, each time by 1 / P, so it is the mean over those samples of the precision
    at their own score.
    """
    return np.array(
        [
            precision.mean() if precision.size else np.nan
            for precision, _ in _class_curves(probabilities, targets)
        ]
    )


def pr_curves_png(
    probabilities: NDArray[np.float32],
    targets: NDArray[np.int64],
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Write a picture of the precision-recall curves, one class against the rest, average precision in the legend.

    ``probabilities``: (N, K) float32 in [0, 1]; ``targets``: (N,) int64 in [0, K). Up to 10 classes each has its
    curve (both of two); of more, the 10 of lowest average precision, and the micro average over all classes.
    Classes without targets have no curve and are named. Thin gray lines join points of equal F1. Raises ValueError
    where the shapes do not fit.
    """
    expected = (len(targets), len(class_names))
    if probabilities.shape != expected:
        raise ValueError(
            f"probabilities of shape {probabilities.shape}, expected {expected} from targets and names"
        )
    curves = _class_curves(probabilities, targets)
    with_targets = [index for index, (precision, _) in enumerate(curves) if precision.size]
    precisions = {index: float(curves[index][0].mean()) for index in with_targets}
    lowest = sorted(with_targets, key=lambda index: precisions[index])[:MAX_CURVES]

    drawn = [(shortened(class_names[i]), precisions[i], curves[i]) for i in reversed(lowest)]
    if len(class_names) > MAX_CURVES and with_targets:
        micro = _micro_curve(probabilities, targets)
        drawn.insert(0, ("micro average", float(micro[0].mean()), micro))
    absent = [class_names[i] for i, (precision, _) in enumerate(curves) if not precision.size]
    mean = np.mean(list(precisions.values())) if precisions else np.nan
    title = f"mean average precision {mean:.3f}"
    if len(with_targets) > MAX_CURVES:
        title += f"; the {MAX_CURVES} lowest of {len(with_targets)} classes"
    _draw(drawn, title, absent, path)


def _class_curves(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> list[Curve]:
    """Return the curve of each class; empty arrays for a class without targets."""
    scores = np.ascontiguousarray(probabilities.T)  # (K, N)
    scores.sort(axis=1)  # a plain sort is vectorised, an argsort is not on every machine
    own = probabilities[np.arange(len(targets)), targets]
    order = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[order], np.arange(probabilities.shape[1] + 1))
    return [
        _curve(scores[k], own[order[first:last]])
        for k, (first, last) in enumerate(itertools.pairwise(bounds))
    ]


def _micro_curve(probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> Curve:
    """Return the curve over all pairs of a sample and a class, positive where the class is the sample's."""
    return _curve(
        np.sort(probabilities, axis=None), probabilities[np.arange(len(targets)), targets]
    )


def _curve(ascending: NDArray[np.float32], positives: NDArray[np.float32]) -> Curve:
    """Return (P,) precision and recall at the score of each positive, by growing recall.

    ``ascending``: the scores of positives and negatives, sorted; ``positives``: (P,) the scores of the positives.
    """
    positives = np.sort(positives)
    found = positives.size - np.searchsorted(
        positives, positives, side="left"
    )  # equal scores come together
    taken = ascending.size - np.searchsorted(ascending, positives, side="left")
    return (found / taken)[::-1], (found / max(1, positives.size))[::-1]


def _thinned(curve: Curve) -> Curve:
    """Return at most `_MAX_POINTS` points of a curve, evenly spaced in recall, its ends among them."""
    size = curve[0].size
    if size <= _MAX_POINTS:
        return curve
    kept = np.linspace(0, size - 1, _MAX_POINTS).round().astype(np.intp)
    return curve[0][kept], curve[1][kept]


def _draw(drawn: list[tuple[str, float, Curve]], title: str, absent: list[str], path: Path) -> None:
    labels = [name for name, _, _ in drawn]
    left, bottom, note = 0.65, 0.55, 0.25 if absent else 0.0
    legend = left + _SIDE + 0.6
    figure = new_figure(
        legend + 0.95 + max(1.2, text_width(labels, 9)) + 0.1, bottom + note + _SIDE + 0.4
    )
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    limits, box = (0, 1.02), (left, bottom + note, _SIDE, _SIDE)
    axes = add_plot(
        figure,
        box,
        x=limits,
        y=limits,
        xticks=ticks,
        yticks=ticks,
        xlabel="recall",
        ylabel="precision",
    )
    add_title(axes, title)
    _add_lines_of_equal_f1(axes)
    for row, (name, average_precision, curve) in enumerate(drawn):
        is_micro = len(drawn) > MAX_CURVES and row == 0
        rank = len(drawn) - 1 - row
        style: dict[str, Any] = {
            "color": DARK if is_micro else _COLORS[rank % len(_COLORS)],
            "linestyle": "-" if is_micro or rank < len(_COLORS) else (0, (4, 1.5)),
            "linewidth": 2.2 if is_micro else 1.5,
        }
        precision, recall = _thinned(curve)
        # The precision at a point holds back to the point before: the area under the steps is the average precision.
        axes.plot(np.r_[0, recall], np.r_[precision[0], precision], drawstyle="steps-pre", **style)
        height = bottom + note + _SIDE - 0.1 - (row + 1) * _LINE_HEIGHT
        _add_legend_row(figure, legend, height, f"{average_precision:.3f}", name, style)
    _write(figure, legend + 0.42, bottom + note + _SIDE - 0.1, "AP", color=GRAY)
    if absent:
        names = ", ".join(shortened(name) for name in absent[:4]) + (
            ", ..." if len(absent) > 4 else ""
        )
        count = "1 class" if len(absent) == 1 else f"{len(absent)} classes"
        _write(figure, 0.15, 0.15, f"no samples of {count}: {names}", color=GRAY)
    save_png(figure, path)


def _add_lines_of_equal_f1(axes: "Axes") -> None:
    from matplotlib.collections import LineCollection

    recall = np.linspace(0.01, 1, 100)
    lines = []
    for f1 in (0.2, 0.4, 0.6, 0.8):
        # F1 = 2 P R / (P + R), solved for P; only where P is in (0, 1].
        with np.errstate(divide="ignore"):
            precision = f1 * recall / (2 * recall - f1)
        is_inside = (precision > 0) & (precision <= 1)
        lines.append(np.column_stack([recall, precision])[is_inside])
        axes.text(1.025, f1 / (2 - f1), f"F1 {f1:g}", fontsize=8, color=GRAY, va="center")
    axes.add_collection(LineCollection(lines, colors="#d5d5d5", linewidths=0.8), autolim=False)


def _add_legend_row(
    figure: "Figure", left: float, height: float, value: str, name: str, style: dict[str, Any]
) -> None:
    from matplotlib.lines import Line2D

    total_width, total_height = figure.get_size_inches()
    ends = [left / total_width, (left + 0.33) / total_width]
    figure.add_artist(Line2D(ends, [height / total_height] * 2, **style))
    _write(figure, left + 0.42, height, value, color=DARK)
    _write(figure, left + 0.88, height, name, color=DARK)


def _write(figure: "Figure", left: float, height: float, text: str, color: str) -> None:
    total_width, total_height = figure.get_size_inches()
    figure.text(
        left / total_width,
        height / total_height,
        text,
        color=color,
        va="center",
        **name_style([text], 9),
    )
