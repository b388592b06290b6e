"""The digest changes with pixels, labels, ids and rows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from visionsweep.data.dataset import ImageSet
from visionsweep.data.digest import content_digest

ROWS = np.arange(10)


def make() -> ImageSet:
    images = torch.randint(
        0, 256, (10, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageSet(images, torch.arange(10) % 3, [str(i) for i in range(10)])


def test_the_same_content_has_the_same_digest() -> None:
    assert content_digest(make(), ROWS) == content_digest(make(), ROWS)
    assert len(content_digest(make(), ROWS)) == 16


def change_pixel(images: ImageSet) -> ImageSet:
    pixels = images.images.clone()
    pixels[7, 0, 3, 3] ^= 1
    return replace(images, images=pixels)


@pytest.mark.parametrize(
    "change",
    [
        change_pixel,
        lambda images: replace(images, targets=(images.targets + 1) % 3),
        lambda images: replace(images, ids=[*images.ids[:-1], "other"]),
    ],
    ids=["pixel", "label", "id"],
)
def test_any_change_changes_it(change: Callable[[ImageSet], ImageSet]) -> None:
    assert content_digest(change(make()), ROWS) != content_digest(make(), ROWS)


def test_other_rows_change_it() -> None:
    assert content_digest(make(), ROWS[:9]) != content_digest(make(), ROWS)
    odd = replace(make(), ids=["\udcff.png", *make().ids[1:]])  # a file name that is not UTF-8
    assert content_digest(odd, ROWS) != content_digest(make(), ROWS)


def test_of_many_pixels_only_evenly_spaced_rows_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionsweep.data.digest.MAX_BYTES", 4 * 16)  # 4 images: rows 0, 3, 6, 9
    assert content_digest(change_pixel(make()), ROWS) == content_digest(make(), ROWS)
    last = make().images.clone()
    last[9] ^= 1
    assert content_digest(replace(make(), images=last), ROWS) != content_digest(make(), ROWS)
