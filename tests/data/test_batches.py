"""The order of training images; see tests/training for batches within a run."""

import torch

from visionsweep.data.batches import Normalization, Placement, TrainBatches


def test_balanced_batches_draw_each_class_equally_often() -> None:
    targets = torch.tensor([0] * 600 + [1] * 300 + [2] * 5)
    placement = Placement(
        Normalization((0.5,), (0.5,)), torch.device("cpu"), torch.contiguous_format
    )
    train = TrainBatches(
        torch.zeros(len(targets), 1, 2, 2, dtype=torch.uint8),
        targets,
        32,
        placement,
        indices=torch.arange(len(targets)),
        augment=lambda images, targets, generator: (images, targets),
        seed=0,
        balanced=True,
    )
    drawn = torch.cat([targets[train.order(epoch)] for epoch in range(20)])
    shares = torch.bincount(drawn) / len(drawn)
    # 18,000 draws: the standard deviation of a share is 0.0035
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
