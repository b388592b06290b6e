"""Images, and folders of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pixels() -> np.ndarray:
    """(5, 3, 8, 10) uint8."""
    return np.random.default_rng(3).integers(0, 256, (5, 3, 8, 10), dtype=np.uint8)


@pytest.fixture
def write_images(pixels: np.ndarray) -> Callable[..., Path]:
    """Write the images under the given names; return their folder."""

    def write(folder: Path, *names: str) -> Path:
        for name, image in zip(names, pixels, strict=False):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
        return folder

    return write
