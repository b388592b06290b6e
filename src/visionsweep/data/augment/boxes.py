"""One axis-aligned box per image: its mask, and filling it with other pixels."""

import torch
from torch import Tensor


def box_mask(
    tops: Tensor, lefts: Tensor, bottoms: Tensor, rights: Tensor, height: int, width: int
) -> Tensor:
    """Return (B, 1, height, width) bool, true inside each box.

    The edges are (B,) int64, bottom and right exclusive.
    """
    rows = torch.arange(height, device=tops.device)
    columns = torch.arange(width, device=tops.device)
    in_rows = (rows >= tops[:, None]) & (rows < bottoms[:, None])
    in_columns = (columns >= lefts[:, None]) & (columns < rights[:, None])
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


def paint(images: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
    """Return `pixels` where `mask` (B, 1, H, W) bool is true, else `images`; both of one dtype."""
    # Exact, as one of the two terms is 0. torch.where takes 8 times as long on uint8 (2.14, CPU).
    return (images * ~mask).add_(pixels * mask)
