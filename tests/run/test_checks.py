"""Warnings about settings that are legal but probably mistakes."""

import pytest
import torch

from visionsweep.data.augment.pipeline import Pipeline
from visionsweep.data.batches import Normalization, Placement, TrainBatches
from visionsweep.losses.base import Loss
from visionsweep.losses.ce_f1 import CrossEntropyF1Loss
from visionsweep.losses.cross_entropy import CrossEntropyLoss
from visionsweep.losses.f1 import SoftF1Loss
from visionsweep.losses.logit_adjusted import LogitAdjustedLoss
from visionsweep.run.checks import mistakes

COUNTS = torch.tensor([60, 30, 10])


def warnings(loss: Loss, *, balanced: bool = False, batch_size: int = 32) -> str:
    targets = torch.arange(3).repeat_interleave(COUNTS)
    train = TrainBatches(
        torch.zeros(100, 1, 2, 2, dtype=torch.uint8),
        targets,
        batch_size,
        Placement(Normalization((0.5,), (0.5,)), torch.device("cpu"), torch.contiguous_format),
        indices=torch.arange(100),
        augment=Pipeline({}),
        seed=0,
        balanced=balanced,
    )
    return "\n".join(mistakes(loss, train, COUNTS))


WEIGHTED = CrossEntropyLoss("balanced", class_counts=COUNTS)
ADJUSTED = LogitAdjustedLoss(class_counts=COUNTS)


@pytest.mark.parametrize(
    ("loss", "balanced", "expected"),
    [
        (WEIGHTED, True, "class weights and trainer.sampler=balanced"),
        (ADJUSTED, True, "the logit adjustment (loss.tau=1) and trainer.sampler=balanced"),
        (
            LogitAdjustedLoss(2.0, "balanced", class_counts=COUNTS),
            False,
            "the logit adjustment (loss.tau=2) and class weights",
        ),
        (
            CrossEntropyF1Loss(class_weights=[1.0, 2.0, 3.0], class_counts=COUNTS),
            True,
            "class weights and trainer.sampler=balanced",
        ),
        (WEIGHTED, False, None),
        (ADJUSTED, False, None),
        (CrossEntropyLoss(), True, None),
        (LogitAdjustedLoss(0.0, class_counts=COUNTS), True, None),
        (CrossEntropyLoss([1.0, 1.0, 1.0], class_counts=COUNTS), True, None),
    ],
)
def test_correcting_for_rare_classes_twice_is_a_warning(
    loss: Loss, balanced: bool, expected: str | None
) -> None:
    text = f"{expected} correct for rare classes twice; choose one"
    assert warnings(loss, balanced=balanced) == (text if expected else "")


@pytest.mark.parametrize(
    ("loss", "batch_size", "balanced", "is_warned"),
    [
        (SoftF1Loss(), 32, False, True),  # 25 images per update, 2.5 of the rarest class
        (SoftF1Loss(), 50, False, False),  # 5 of the rarest class
        (SoftF1Loss(), 32, True, False),  # a third of each class
        (CrossEntropyF1Loss(ce_weight=0.0), 32, False, True),
        (CrossEntropyF1Loss(), 32, False, False),
        (CrossEntropyLoss(), 1, False, False),
    ],
)
def test_soft_f1_alone_with_few_images_of_a_class_is_a_warning(
    loss: Loss, batch_size: int, balanced: bool, is_warned: bool
) -> None:
    text = warnings(loss, balanced=balanced, batch_size=batch_size)
    assert ("only 2.5 of the rarest class" in text and "50 images per update" in text) == is_warned
    assert bool(text) == is_warned
