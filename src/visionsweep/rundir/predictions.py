"""`predictions.npz`: what the best checkpoint says of each validation and test image.

Written once, at the end of a run. Pictures, reports, comparisons and ensembles are made from it,
without the data or the network. Imports no torch.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.errors import DataError
from visionsweep.rundir.atomic import atomic_write
from visionsweep.rundir.layout import PREDICTIONS
from visionsweep.text import first_line

# What NumPy raises for a damaged archive; TypeError for a file that is a single array.
_NOT_OURS = (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)

NUM_MISTAKES = 24  # images kept for the contact sheet


@dataclass(frozen=True)
class SplitPredictions:
    """The predictions for the N images of one split."""

    ids: NDArray[np.str_]  # (N,) as in split.csv
    targets: NDArray[np.int64]  # (N,)
    logits: NDArray[np.float32]  # (N, K)
    # (N,) what each image stays together with, as in split.csv; "" if nothing. None: a file of an
    # older version, which does not tell
    groups: NDArray[np.str_] | None = None

    def probabilities(self) -> NDArray[np.float32]:
        """Return the softmax of the logits, (N, K)."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
        return probabilities


@dataclass(frozen=True)
class Predictions:
    """The contents of `predictions.npz`."""

    class_names: list[str]  # (K,)
    val: SplitPredictions
    test: SplitPredictions | None
    mistakes: NDArray[np.int64]  # (M,) indices into `val`, see `worst_mistakes`
    mistake_images: NDArray[np.uint8]  # (M, C, H, W) as the network saw them, before augmentation
    # (E, N) the class of each validation image at the end of each epoch; None: not kept
    epoch_preds: NDArray[np.int16] | None = None


def log_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the natural logarithm of probabilities; of 0 it is finite, as of the smallest float32.

    A softmax in float32 may give 0, and one such image must not make a mean infinite.
    """
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logs


def worst_mistakes(
    logits: NDArray[np.float32], targets: NDArray[np.int64], count: int = NUM_MISTAKES
) -> NDArray[np.int64]:
    """Return the indices of up to `count` wrong predictions, the most confident first.

    ``logits``: (N, K), ``targets``: (N,). Of two equally confident ones the first comes first.
    """
    preds = logits.argmax(axis=1)
    wrong = np.flatnonzero(preds != targets)
    rows = logits[wrong].astype(np.float64)
    top = rows.max(axis=1)
    log_confidence = -np.log(np.exp(rows - top[:, None]).sum(axis=1))
    worst: NDArray[np.int64] = wrong[np.argsort(-log_confidence, kind="stable")[:count]]
    return worst.astype(np.int64)


def write_predictions(run_dir: Path, predictions: Predictions) -> None:
    """Write `predictions.npz` atomically."""
    arrays: dict[str, Any] = {
        "class_names": np.array(predictions.class_names, dtype=np.str_),
        "mistakes": predictions.mistakes,
        "mistake_images": predictions.mistake_images,
    }
    if predictions.epoch_preds is not None:
        arrays["epoch_preds"] = predictions.epoch_preds
    for name, split in (("val", predictions.val), ("test", predictions.test)):
        if split is not None:
            given = {field: value for field, value in vars(split).items() if value is not None}
            arrays |= {f"{name}_{field}": value for field, value in given.items()}
    with atomic_write(run_dir / PREDICTIONS) as file:
        np.savez(file, **arrays)


def read_predictions(run_dir: Path) -> Predictions:
    """Read `predictions.npz`. Raises `DataError` if it is missing or damaged."""
    path = run_dir / PREDICTIONS
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: the run has not finished, or is of an older version"
        )
    try:
        # NumPy leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Predictions(
                class_names=arrays["class_names"].tolist(),
                val=_split(arrays, "val"),
                test=_split(arrays, "test") if "test_logits" in arrays else None,
                mistakes=arrays["mistakes"],
                mistake_images=arrays["mistake_images"],
                epoch_preds=arrays.get("epoch_preds"),
            )
    except _NOT_OURS as error:
        raise DataError(
            f"cannot read {path} ({first_line(error)}); was it written by visionsweep?"
        ) from error


def _split(arrays: Any, name: str) -> SplitPredictions:
    ids, targets, logits = (arrays[f"{name}_{field}"] for field in ("ids", "targets", "logits"))
    return SplitPredictions(ids, targets, logits, arrays.get(f"{name}_groups"))
