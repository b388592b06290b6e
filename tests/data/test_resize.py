"""Resizing against Pillow, and the sizes of progressive resizing."""

import numpy as np
import pytest
import torch
from PIL import Image

from visionsweep.data.resize import resize
from visionsweep.data.size_schedule import make_size_schedule
from visionsweep.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(9, 13), (40, 31)])
def test_resize_is_pillows(size: tuple[int, int], dtype: torch.dtype) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 24, 30), dtype=np.uint8)
    images = torch.from_numpy(pixels).to(dtype)
    out = resize(images, size)
    assert out.dtype == dtype
    for index in range(4):
        image = Image.fromarray(pixels[index].transpose(1, 2, 0))
        expected = image.resize(size[::-1], Image.Resampling.BILINEAR)
        difference = out[index].numpy().transpose(1, 2, 0) - np.asarray(expected).astype(float)
        assert np.abs(difference).max() <= 1
    assert resize(images, (24, 30)) is images


def test_a_schedule_gives_each_size_an_equal_part() -> None:
    schedule = make_size_schedule([32, [48, 64], 64], 7, (64, 64))
    assert [schedule.size(epoch) for epoch in range(7)] == (
        [(32, 32)] * 3 + [(48, 64)] * 2 + [(64, 64)] * 2
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([32, 65], r"65 is more than the images have \(data\.image_size=64x64\)"),
        ([], r"expected 1 to 2 sizes for trainer\.epochs=2, got 0"),
        ([8, 16, 32], r"expected 1 to 2 sizes for trainer\.epochs=2, got 3"),
        ([0], r"expected a list of pixels, .* got 0 in it"),
        ([[8, 8, 8]], r"expected a list of pixels"),
        ([8.5], r"expected a list of pixels"),
    ],
)
def test_wrong_schedules_are_refused(sizes: list, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^trainer.image_sizes: {message}"):
        make_size_schedule(sizes, 2, (64, 64))
