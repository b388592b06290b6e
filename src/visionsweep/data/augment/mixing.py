"""Mixup and CutMix: each image mixed with a partner from its batch, and soft targets."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from visionsweep.data.augment.boxes import box_mask, paint
from visionsweep.errors import ConfigError


class Mixup:
    """lam * image + (1 - lam) * partner, lam ~ Beta(alpha, alpha) per image (arXiv 1710.09412)."""

    def __init__(self, alpha: float, num_classes: int) -> None:
        self.alpha = _positive(self, alpha)
        self.num_classes = num_classes

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return float32 images, and targets (B, num_classes) float32 whose rows sum to 1."""
        partners = torch.randperm(len(images), generator=generator).to(images.device)
        lam = _draw_beta(self.alpha, len(images), generator).to(images.device, torch.float32)
        pixels = images.float()
        mixed = torch.lerp(pixels.index_select(0, partners), pixels, lam.view(-1, 1, 1, 1))
        return mixed, mix_targets(targets, partners, lam, self.num_classes)


class CutMix:
    """Pastes a box of its partner into each image; targets by the share of pixels (1905.04899).

    The box covers 1 - lam of the image before it is cut at the edges, lam ~ Beta(alpha, alpha); its
    centre is uniform. Place and size differ from image to image.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        self.alpha = _positive(self, alpha)
        self.num_classes = num_classes

    def __call__(
        self, images: Tensor, targets: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return images of the same dtype, and targets (B, num_classes) float32; rows sum to 1."""
        batch, _, height, width = images.shape
        partners = torch.randperm(batch, generator=generator)
        lam = _draw_beta(self.alpha, batch, generator)
        box = draw_boxes(lam, height, width, generator)
        area = (box.bottoms - box.tops) * (box.rights - box.lefts)
        kept = (1 - area / (height * width)).to(images.device)
        mask = box_mask(box.tops, box.lefts, box.bottoms, box.rights, height, width)
        partners = partners.to(images.device)
        mixed = paint(images, mask.to(images.device), images.index_select(0, partners))
        return mixed, mix_targets(targets, partners, kept, self.num_classes)


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


def mix_targets(targets: Tensor, partners: Tensor, kept: Tensor, num_classes: int) -> Tensor:
    """Return (B, num_classes) float32: `kept` (B,) of the own class, the rest of the partner's."""
    if targets.ndim == 1:
        targets = F.one_hot(targets, num_classes)
    soft = targets.to(torch.float32)
    return torch.lerp(soft[partners], soft, kept.to(torch.float32).view(-1, 1))


def _draw_beta(alpha: float, count: int, generator: Generator) -> Tensor:
    """Return (count,) float64 from Beta(alpha, alpha)."""
    # torch.distributions cannot draw from a given generator, so it seeds NumPy's.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count))


def _positive(step: object, alpha: float) -> float:
    if not alpha > 0:
        raise ConfigError(
            f"augment: {type(step).__name__}.alpha: expected a number above 0, got {alpha}"
        )
    return alpha
