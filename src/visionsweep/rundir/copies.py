"""`copies.npz`: images that are, or look like, another one with another label or split.

Written at the start of a run if there are such images, so that a report can show them without the
data. Imports no torch.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionsweep.rundir.atomic import atomic_write
from visionsweep.rundir.layout import COPIES

MAX_PAIRS = 24


@dataclass(frozen=True)
class Copies:
    """P pairs of images; each array begins with the first copy."""

    ids: NDArray[np.str_]  # (P, 2)
    classes: NDArray[np.str_]  # (P, 2) names
    splits: NDArray[np.str_]  # (P, 2) train, val, test, or fold 2 if the data has folds of its own
    images: NDArray[np.uint8]  # (P, 2, C, H, W), made smaller
    num_pairs: int  # of which the first P are here


def write_copies(run_dir: Path, copies: Copies) -> None:
    """Write the file atomically."""
    with atomic_write(run_dir / COPIES) as file:
        np.savez_compressed(file, **vars(copies))


def read_copies(run_dir: Path) -> Copies | None:
    """Return the contents; None if there is no such file, or it is damaged."""
    try:
        with (run_dir / COPIES).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Copies(
                ids=arrays["ids"],
                classes=arrays["classes"],
                splits=arrays["splits"],
                images=arrays["images"],
                num_pairs=int(arrays["num_pairs"]),
            )
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
