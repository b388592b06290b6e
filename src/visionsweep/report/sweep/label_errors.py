"""Images whose label is probably wrong, by confident learning.

Northcutt et al., Confident Learning (JAIR 2021, arXiv 1911.00068), through cleanlab. The
probabilities must be of images that the network was not trained on: validation images, or all of
them if they are out of fold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install 'visionsweep[labels]'"
_MIN_OF_CLASS = 2  # images; with fewer, a class has no threshold


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubtful."""

    index: int  # among the images judged
    suggested: int  # the class that the network sees in it
    confidence: float  # in the label that it has


def has_cleanlab() -> bool:
    """Return whether cleanlab is installed."""
    from importlib.util import find_spec

    return find_spec("cleanlab") is not None


def suspected_labels(
    targets: NDArray[np.int64], probabilities: NDArray[np.floating]
) -> list[Suspect]:
    """Return the images that confident learning doubts, the least credible label first.

    ``targets``: (N,), ``probabilities``: (N, K). Needs cleanlab. Classes with fewer than two images
    are left out, since their threshold would be a guess.
    """
    from cleanlab.filter import find_label_issues  # takes a second or two

    counts = np.bincount(targets, minlength=probabilities.shape[1])
    classes = np.flatnonzero(counts >= _MIN_OF_CLASS)
    if len(classes) < 2:
        return []
    rows = np.flatnonzero(np.isin(targets, classes))
    known = probabilities[np.ix_(rows, classes)].astype(np.float64)
    known /= np.maximum(known.sum(axis=1, keepdims=True), 1e-12)
    labels = np.searchsorted(classes, targets[rows])
    found = find_label_issues(
        labels=labels, pred_probs=known, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return [
        Suspect(
            index=int(rows[i]),
            suggested=int(classes[known[i].argmax()]),
            confidence=float(known[i, labels[i]]),
        )
        for i in found.tolist()
    ]
