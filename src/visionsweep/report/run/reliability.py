"""The reliability diagram and the expected calibration error.

C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
section 2.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import BLUE, GRAY, ORANGE, new_figure, save_png

NUM_BINS = 15  # as in the paper


class Calibration(NamedTuple):
    """The samples in bins of equal width by their confidence."""

    edges: NDArray[np.float64]  # (M + 1,)
    counts: NDArray[np.int64]  # (M,)
    accuracies: NDArray[np.float64]  # (M,), 0 in an empty bin
    confidences: NDArray[np.float64]  # (M,) means, 0 in an empty bin

    @property
    def weights(self) -> NDArray[np.float64]:
        """The share of the samples in each bin."""
        weights: NDArray[np.float64] = self.counts / max(1, self.counts.sum())
        return weights

    @property
    def error(self) -> float:
        """The expected calibration error (equation 5 of the paper), in [0, 1]; lower is better."""
        return float(np.abs(self.accuracies - self.confidences) @ self.weights)


def calibration(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], num_bins: int = NUM_BINS
) -> Calibration:
    """Return how often the most probable class is right, by its probability (the confidence).

    ``probabilities``: (N, K) in [0, 1]; ``targets``: (N,) in [0, K). Bin m of M is
    ((m - 1) / M, m / M].
    """
    preds = probabilities.argmax(axis=1)
    confidences = probabilities[np.arange(len(preds)), preds].astype(np.float64)
    edges = np.linspace(0, 1, num_bins + 1)
    # a softmax in float32 may give 1.0000001
    bins = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    num_correct = np.bincount(bins, preds == targets, minlength=num_bins)
    total_confidence = np.bincount(bins, confidences, minlength=num_bins)
    divisor = np.maximum(1, counts)
    return Calibration(edges, counts, num_correct / divisor, total_confidence / divisor)


def draw_reliability(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], path: Path
) -> None:
    """Draw accuracy over confidence in 15 bins, and below it the share of the samples in each.

    The orange bars are the gaps between accuracy and mean confidence of each bin.
    """
    binned = calibration(probabilities, targets)
    left, width = binned.edges[:-1], np.diff(binned.edges)
    figure = new_figure(4.9, 5.85)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--")
    bars = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    above.bar(left, binned.accuracies, width, color=BLUE, label="accuracy", **bars)
    above.bar(
        left + 0.3 * width,
        binned.confidences - binned.accuracies,
        0.4 * width,
        bottom=binned.accuracies,
        color=ORANGE,
        label="gap to the mean confidence",
        **bars,
    )
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.set_title(f"expected calibration error {binned.error:.3f}", pad=24)
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1, borderpad=0)

    below.bar(left, binned.weights, width, color="#b9c4d0", **bars)
    for name, means, color, linestyle in (
        ("accuracy", binned.accuracies, BLUE, "-"),
        ("mean confidence", binned.confidences, ORANGE, "--"),
    ):
        mean = float(means @ binned.weights)
        label = f"{name} {mean:.3f}"
        below.axvline(mean, color=color, linewidth=1.4, linestyle=linestyle, label=label)
    below.set(xlabel="confidence", ylabel="share")
    below.legend()
    save_png(figure, path)
