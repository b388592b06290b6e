"""The order of training images, and updates whatever their micro-batches.

See tests/training for batches within a run.
"""

import pytest
import torch
from torch import Tensor

from visionsweep.data.augment.color import ColorJitter
from visionsweep.data.augment.erasing import RandomErasing
from visionsweep.data.augment.geometry import Flip, ShiftedCrop
from visionsweep.data.augment.mixing import CutMix, Mixup
from visionsweep.data.augment.pipeline import Pipeline, Step
from visionsweep.data.batches import Batch, Normalization, Placement, TrainBatches

NUM_CLASSES = 32
STEPS: dict[str, Step] = {
    "crop": ShiftedCrop(0.125),
    "flip": Flip(0.5, flips=True),
    "erasing": RandomErasing(0.5, 0.02, 0.3),
    "color": ColorJitter(0.4, 0.4, 0.4, 0.05),
    "mixup": Mixup(1.0, NUM_CLASSES),
    "cutmix": CutMix(1.0, NUM_CLASSES),
}
SPLITS = [(32, 1), (8, 4), (5, 7), (1, 32)]  # batch size, accumulate: one update each


def make_batches(
    images: Tensor,
    targets: Tensor,
    batch_size: int,
    accumulate: int = 1,
    *,
    steps: tuple[str, ...] = (),
    balanced: bool = True,
) -> TrainBatches:
    return TrainBatches(
        images,
        targets,
        batch_size,
        Placement(Normalization((0.5,), (0.5,)), torch.device("cpu"), torch.contiguous_format),
        indices=torch.arange(len(targets)),
        augment=Pipeline({name: STEPS[name] for name in steps}),
        seed=0,
        balanced=balanced,
        accumulate=accumulate,
    )


def numbered(count: int, side: int = 6) -> tuple[Tensor, Tensor]:
    """Return images each of one class and one value of its own, so both say what was mixed."""
    numbers = torch.arange(count)
    pixels = (numbers * 6).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, side, side)
    return pixels.contiguous(), numbers


def joined(update: list[Batch]) -> tuple[Tensor, Tensor]:
    return (
        torch.cat([batch.images for batch in update]),
        torch.cat([batch.targets for batch in update]),
    )


@pytest.mark.parametrize(
    "steps",
    [("mixup",), ("cutmix",), ("crop", "flip", "erasing", "color"), ("flip", "mixup", "cutmix")],
    ids="+".join,
)
def test_an_update_does_not_depend_on_its_micro_batches(steps: tuple[str, ...]) -> None:
    """Nor on the pieces in which it is augmented, which are smaller here than an update."""
    expected = None
    for batch_size, accumulate in SPLITS:
        train = make_batches(
            *numbered(NUM_CLASSES), batch_size, accumulate, steps=steps, balanced=False
        )
        train._piece = 7
        (update,) = train.updates(0)
        assert max(len(batch.images) for batch in update) <= batch_size
        images, targets = joined(update)
        if expected is None:
            expected = images, targets
        torch.testing.assert_close(images, expected[0])
        torch.testing.assert_close(targets, expected[1])


@pytest.mark.parametrize("step", ["mixup", "cutmix"])
def test_every_image_is_mixed_whatever_the_batch_size(step: str) -> None:
    shares = {}
    for batch_size in (1, 2, 8, 32):
        train = make_batches(*numbered(NUM_CLASSES), batch_size, steps=(step,), balanced=False)
        targets = torch.cat([joined(update)[1] for update in train.updates(0)])
        shares[batch_size] = float((targets.max(dim=1).values < 1).float().mean())
    if step == "mixup":
        assert shares == dict.fromkeys(shares, 1.0)
    else:  # a small box may cover no pixel of 6 x 6
        assert min(shares.values()) > 0.7


def test_balanced_batches_draw_each_class_equally_often() -> None:
    targets = torch.tensor([0] * 600 + [1] * 300 + [2] * 5)
    train = make_batches(torch.zeros(len(targets), 1, 2, 2, dtype=torch.uint8), targets, 32)
    drawn = torch.cat([targets[train.order(epoch)] for epoch in range(20)])
    shares = torch.bincount(drawn) / len(drawn)
    # 18,000 draws: the standard deviation of a share is 0.0035
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
