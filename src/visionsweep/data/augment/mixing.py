"""Mixup and CutMix: each image mixed with another one, and soft targets.

In training the others come from the whole epoch (`TrainBatches`). A partner from the micro-batch
would leave a share of the images unmixed, all of them at batch size 1, and the gradient of an
update would depend on how it is split.
"""

import abc
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from visionsweep.data.augment.boxes import box_mask, paint
from visionsweep.errors import ConfigError


class _Mixing(abc.ABC):
    """Mixes images with `others`; without any, with other images of the same batch."""

    def __init__(self, alpha: float, num_classes: int) -> None:
        if not alpha > 0:
            raise ConfigError(
                f"augment: {type(self).__name__}.alpha: expected a number above 0, got {alpha}"
            )
        self.alpha = alpha
        self.num_classes = num_classes

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix each image with another one of the batch, never with itself."""
        order = torch.randperm(len(images), generator=generator)
        partners = torch.empty_like(order)
        partners[order] = order.roll(1)
        partners = partners.to(images.device)
        return self.mix(images, targets, images[partners], targets[partners], generator)

    @abc.abstractmethod
    def mix(
        self,
        images: Tensor,
        targets: Tensor,
        others: Tensor,
        other_targets: Tensor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed images, and targets (B, num_classes) float32 whose rows sum to 1."""


class Mixup(_Mixing):
    """lam * image + (1 - lam) * partner, lam ~ Beta(alpha, alpha) per image (arXiv 1710.09412)."""

    def mix(
        self,
        images: Tensor,
        targets: Tensor,
        others: Tensor,
        other_targets: Tensor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return float32 images, and soft targets."""
        lam = _draw_beta(self.alpha, len(images), generator).to(images.device, torch.float32)
        mixed = torch.lerp(others.float(), images.float(), lam.view(-1, 1, 1, 1))
        return mixed, mix_targets(targets, other_targets, lam, self.num_classes)


class CutMix(_Mixing):
    """Pastes a box of its partner into each image; targets by the share of pixels (1905.04899).

    The box covers 1 - lam of the image before it is cut at the edges, lam ~ Beta(alpha, alpha); its
    centre is uniform. Place and size differ from image to image.
    """

    def mix(
        self,
        images: Tensor,
        targets: Tensor,
        others: Tensor,
        other_targets: Tensor,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return images of the same dtype, and soft targets."""
        batch, _, height, width = images.shape
        box = draw_boxes(_draw_beta(self.alpha, batch, generator), height, width, generator)
        area = (box.bottoms - box.tops) * (box.rights - box.lefts)
        kept = (1 - area / (height * width)).to(images.device)
        mask = box_mask(box.tops, box.lefts, box.bottoms, box.rights, height, width)
        mixed = paint(images, mask.to(images.device), others)
        return mixed, mix_targets(targets, other_targets, kept, self.num_classes)


@dataclass(frozen=True)
class Boxes:
    """Edges (B,) int64 of one box per image; bottoms and rights are exclusive."""

    tops: Tensor
    lefts: Tensor
    bottoms: Tensor
    rights: Tensor


def draw_boxes(lam: Tensor, height: int, width: int, generator: Generator) -> Boxes:
    """Return boxes that cover 1 - lam (B,), around uniform centres, cut at the edges.

    Their aspect ratio is that of the image.
    """
    ratio = (1 - lam).sqrt()
    edges = []
    for side in (height, width):
        length = (ratio * side).long()
        start = torch.randint(side, lam.shape, generator=generator) - length // 2
        edges.append((start.clamp(0, side), (start + length).clamp(0, side)))
    (tops, bottoms), (lefts, rights) = edges
    return Boxes(tops, lefts, bottoms, rights)


def mix_targets(targets: Tensor, others: Tensor, kept: Tensor, num_classes: int) -> Tensor:
    """Return (B, num_classes) float32: `kept` (B,) of the own target, the rest of the other."""
    if targets.ndim == 1:
        targets, others = F.one_hot(targets, num_classes), F.one_hot(others, num_classes)
    shares = kept.to(torch.float32).view(-1, 1)
    return torch.lerp(others.to(torch.float32), targets.to(torch.float32), shares)


def _draw_beta(alpha: float, count: int, generator: Generator) -> Tensor:
    """Return (count,) float64 from Beta(alpha, alpha)."""
    # torch.distributions cannot draw from a given generator, so it seeds NumPy's.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count))
