"""scikit-learn's handwritten digits: 1,797 images of 8x8, bundled with the package."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from visionsweep.data.dataset import ImageDataset, ImageSet, Preprocessing


def load_digits(flips: bool = False) -> ImageDataset:
    """Return the digits, grey levels 0..16 stretched to 0..255; no official test split."""
    table = _read_table()
    pixels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    targets = torch.from_numpy(table[:, -1].astype(np.int64))
    ids = [str(index) for index in range(len(targets))]
    return ImageDataset(
        name="digits",
        class_names=[str(digit) for digit in range(10)],
        train=ImageSet(torch.from_numpy(pixels), targets, ids),
        preprocessing=Preprocessing(image_size=(8, 8), channels=1),
        flips=flips,
    )


def _read_table() -> npt.NDArray[np.float64]:
    """Return (1797, 65): 64 grey levels and the label of each image."""
    # find_spec does not import the package: sklearn.datasets takes seconds, this read milliseconds.
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as stream:
                return np.loadtxt(stream, delimiter=",", dtype=np.float64)
    from sklearn.datasets import load_digits as load_through_sklearn

    bunch = load_through_sklearn()
    return np.column_stack([bunch.data, bunch.target])
