"""Streamed images against the tensor that they stand for."""

import zlib
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from visionsweep.data.augment.crop import RandomResizedCrop
from visionsweep.data.augment.mixing import Mixup
from visionsweep.data.augment.pipeline import Pipeline
from visionsweep.data.batches import (
    EvalBatches,
    Images,
    Normalization,
    Placement,
    TrainBatches,
)
from visionsweep.data.dataset import ImageSet
from visionsweep.data.digest import content_digest
from visionsweep.data.streamed import PixelSums, StreamedImages
from visionsweep.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 12, 10), dtype=np.uint8)
TARGETS = torch.arange(40) % 4


def decode(path: Path) -> npt.NDArray[np.uint8]:
    """Return the image whose number is the name of the file."""
    if path.name == "gone":
        raise DataError("cannot read gone (no such file)")
    return PIXELS[int(path.name)]


def streamed(workers: int = 2) -> StreamedImages:
    values = PIXELS.astype(np.int64)
    pixels = PixelSums(
        sums=values.sum(axis=(2, 3)),
        squares=(values**2).sum(axis=(2, 3)),
        checksums=np.array([zlib.crc32(image) for image in PIXELS], dtype=np.uint32),
    )
    paths = [Path(str(number)) for number in range(len(PIXELS))]
    return StreamedImages(paths, (3, 12, 10), decode, pixels, workers)


def train_batches(images: Images) -> TrainBatches:
    rows = torch.arange(3, 40)
    normalization = Normalization.of(images, rows)
    steps = {"crop": RandomResizedCrop(0.4, 1.3, 1.2, (10, 8)), "mixup": Mixup(1.0, 4)}
    train = TrainBatches(
        *(images, TARGETS, 5),
        Placement(normalization, torch.device("cpu"), torch.channels_last),
        indices=rows,
        augment=Pipeline(steps),
        seed=3,
        balanced=False,
        accumulate=2,
    )
    train._piece = 4  # several pieces per update
    return train


def test_batches_are_bit_identical_whatever_the_workers() -> None:
    in_memory = train_batches(torch.from_numpy(PIXELS))
    state = torch.get_rng_state()
    for workers in (0, 1, 3):
        train = train_batches(streamed(workers))
        for epoch, start in ((0, 0), (1, 2)):  # the second as a resumed run
            ours = list(train.updates(epoch, start))
            theirs = list(in_memory.updates(epoch))[start:]
            for batch, expected in zip(chain(*ours), chain(*theirs), strict=True):
                assert torch.equal(batch.images, expected.images)
                assert torch.equal(batch.targets, expected.targets)
    assert torch.equal(torch.get_rng_state(), state)  # dropout is the same too


def test_evaluation_and_digest_are_the_same() -> None:
    placement = Placement(
        Normalization((0.5,) * 3, (0.2,) * 3), torch.device("cpu"), torch.contiguous_format
    )
    sets = [streamed(), torch.from_numpy(PIXELS)]
    ours, theirs = (
        list(EvalBatches(images, TARGETS, 16, placement, indices=torch.arange(0, 40, 3)))
        for images in sets
    )
    for batch, expected in zip(ours, theirs, strict=True):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets, expected.targets)
    digests = {
        content_digest(ImageSet(images, TARGETS, [str(i) for i in range(40)]), np.arange(5, 30))
        for images in sets
    }
    assert len(digests) == 1
    for rows in (torch.tensor([7, 2]), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(sets[0][rows], sets[1][rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_changes_meanwhile_is_one_line(workers: int) -> None:
    images = streamed(workers)
    images.pixels.checksums[6] += 1
    images.paths[9] = Path("gone")
    for row, message in (
        (6, "^6 has changed since it was first decoded"),
        (9, "^cannot read gone"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            list(images.batches([torch.tensor([1, 2]), torch.tensor([row])]))
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match=message):
            images[torch.tensor([row])]
