"""Does a model know how sure it can be: the reliability diagram and the expected calibration error.

C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import (
    BLUE,
    GRAY,
    ORANGE,
    add_plot,
    add_title,
    new_figure,
    save_png,
    ticks_within,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_BINS = 15  # as in the paper


class _Bins(NamedTuple):
    edges: NDArray[np.float64]  # (M + 1,)
    counts: NDArray[np.int64]  # (M,)
    accuracies: NDArray[np.float64]  # (M,), NaN in an empty bin
    confidences: NDArray[np.float64]  # (M,) means, NaN in an empty bin

    def calibration_error(self) -> float:
        """Return the mean gap, weighted by the samples of a bin (equation 5 of the paper)."""
        is_filled = self.counts > 0
        gaps = np.abs(self.accuracies - self.confidences)[is_filled]
        return float(gaps @ self.counts[is_filled] / max(1, self.counts.sum()))


def expected_calibration_error(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], num_bins: int = NUM_BINS
) -> float:
    """Return the expected calibration error of the most probable class, in [0, 1]; lower is better.

    ``probabilities``: (N, K) in [0, 1]; ``targets``: (N,) in [0, K). The confidence is the largest probability; its
    range is cut into ``num_bins`` bins of equal width, ((m - 1) / M, m / M]. Guo et al. 2017, equation 5.
    """
    return _binned(probabilities, targets, num_bins).calibration_error()


def reliability_png(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], path: Path
) -> None:
    """Write the reliability diagram: accuracy over confidence in 15 bins, and beneath it how many samples each has.

    ``probabilities``: (N, K) float32 in [0, 1]; ``targets``: (N,) int64 in [0, K). The gap of a bin, between its
    accuracy and its mean confidence, is drawn in orange; a model whose confidence can be believed has none.
    Raises ValueError where the shapes do not fit.
    """
    if probabilities.ndim != 2 or len(probabilities) != len(targets):
        raise ValueError(f"probabilities of shape {probabilities.shape} for {len(targets)} targets")
    bins = _binned(probabilities, targets, NUM_BINS)
    num_samples = max(1, len(targets))
    is_filled = bins.counts > 0
    accuracy = float(bins.accuracies[is_filled] @ bins.counts[is_filled]) / num_samples
    confidence = float(bins.confidences[is_filled] @ bins.counts[is_filled]) / num_samples

    figure = new_figure(4.9, 5.85)
    tenths = [0, 0.2, 0.4, 0.6, 0.8, 1]
    box = (0.7, 1.85, 4.0, 3.35)
    axes = add_plot(
        figure, box, x=(0, 1), y=(0, 1), xticks=tenths, yticks=tenths, ylabel="accuracy"
    )
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--")
    _add_bars(axes, bins.edges, np.zeros(NUM_BINS), bins.accuracies, color=BLUE)
    _add_bars(axes, bins.edges, bins.accuracies, bins.confidences, color=ORANGE, share=0.4)
    add_title(axes, f"expected calibration error {bins.calibration_error():.3f}", above=0.38)
    for left, text, color in (
        (0, "\u25a0 accuracy", BLUE),
        (0.27, "\u25a0 gap to the mean confidence", ORANGE),
    ):
        axes.text(left, 1.03, text, color=color, fontsize=9)

    shares = bins.counts / num_samples
    top = float(max(shares.max(), 1e-9))
    below = add_plot(
        figure,
        (0.7, 0.55, 4.0, 1.15),
        x=(0, 1),
        y=(0, 1.05 * top),
        xticks=tenths,
        yticks=ticks_within(0, 1.05 * top, 4),
        xlabel="confidence",
        ylabel="samples",
    )
    _add_bars(below, bins.edges, np.zeros(NUM_BINS), shares, color="#b9c4d0")
    for value, name, color in (
        (accuracy, "accuracy", BLUE),
        (confidence, "mean confidence", ORANGE),
    ):
        below.axvline(value, color=color, linewidth=1.4, linestyle="-" if color == BLUE else "--")
        height = 0.9 if color == BLUE else 0.7
        below.text(
            0.03, height, f"{name} {value:.3f}", color=color, va="top", transform=below.transAxes
        )
    save_png(figure, path)


def _binned(probabilities: NDArray[np.float32], targets: NDArray[np.int64], num_bins: int) -> _Bins:
    preds = probabilities.argmax(axis=1)
    confidences = probabilities[np.arange(len(preds)), preds].astype(np.float64)
    edges = np.linspace(0, 1, num_bins + 1)
    # A softmax in float32 may give 1.0000001.
    bin_of = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(bin_of, minlength=num_bins)
    sums = [
        np.bincount(bin_of, weights, minlength=num_bins)
        for weights in (preds == targets, confidences)
    ]
    empty = np.full(num_bins, np.nan)
    means = [np.divide(total, counts, out=empty.copy(), where=counts > 0) for total in sums]
    return _Bins(edges, counts, *means)


def _add_bars(
    axes: "Axes",
    edges: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    color: str,
    share: float = 1.0,
) -> None:
    """Add a bar a bin, from low to high and over a share of the bin's width, all as one artist."""
    from matplotlib.collections import PolyCollection

    middle, half = (edges[:-1] + edges[1:]) / 2, share * np.diff(edges) / 2
    left, right = middle - half, middle + half
    corners = np.stack([[left, low], [left, high], [right, high], [right, low]]).transpose(2, 0, 1)
    is_drawn = np.isfinite(low) & np.isfinite(high) & (low != high)
    bars = PolyCollection(
        list(corners[is_drawn]), facecolors=color, edgecolors="white", linewidths=0.8
    )
    axes.add_collection(bars, autolim=False)
