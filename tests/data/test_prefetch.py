"""Items prepared ahead by a thread: the same ones, in order, and no thread left behind."""

import itertools
import threading
from collections.abc import Iterator

import pytest
import torch

from visionsweep.data.batches import Normalization, Placement, TrainBatches
from visionsweep.data.prefetch import prefetched


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_order_and_an_error_after_those_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise ValueError("no more")

    ahead = prefetched(items())
    assert [next(ahead) for _ in range(100)] == list(range(100))
    with pytest.raises(ValueError, match="no more"):
        next(ahead)
    assert not threads()


def test_a_reader_that_stops_early_ends_the_thread() -> None:
    made = itertools.count()
    items = prefetched(iter(made.__next__, None), depth=3)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    items.close()  # type: ignore[attr-defined]
    assert not threads()
    assert next(made) <= 5 + 3 + 1  # those that were ready, and the one in the making


def test_batches_are_the_same_prepared_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=generator)
    placement = Placement(
        Normalization((0.5,), (0.5,)), torch.device("cpu"), torch.contiguous_format
    )

    def noisy(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return images + torch.rand(images.shape, generator=generator), targets

    rows = torch.arange(50)
    train = TrainBatches(
        *(images, rows, 8, placement),
        indices=rows,
        augment=noisy,
        seed=1,
        balanced=False,
        accumulate=1,
    )
    expected = list(train.updates(2, start=3))
    found = list(prefetched(train.updates(2, start=3)))
    assert len(found) == len(expected) == 4
    for update, other in zip(found, expected, strict=True):
        assert torch.equal(update[0].images, other[0].images)
        assert torch.equal(update[0].targets, other[0].targets)
