"""The file of decoded images and its checksums."""

import errno
import mmap
from pathlib import Path

import numpy as np
import pytest

from visionsweep.data import cache_file
from visionsweep.data.findings import Findings

SHAPE = (64, 3, 8, 8)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


def test_of_a_large_file_evenly_spaced_blocks_are_checked(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(cache_file, "MAX_CHECKED_BYTES", 5000)
    path = tmp_path / "images.npy"
    cache_file.write(path, SHAPE, [images], Findings())
    contents = path.read_bytes()
    noticed = []
    for block in range(13):
        path.write_bytes(contents[: block * 1000] + b"?" + contents[block * 1000 + 1 :])
        try:
            cache_file.read(path, SHAPE)
        except cache_file.DamagedError:
            noticed.append(block)
    assert noticed == [0, 3, 6, 9, 12]


def test_a_file_system_without_memory_maps(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_file.write(tmp_path / "images.npy", SHAPE, [images], Findings())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    found = cache_file.read(tmp_path / "images.npy", SHAPE)
    assert found is not None
    assert np.array_equal(found[0], images)
