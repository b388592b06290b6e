"""One axis-aligned box an image, as a mask."""

import torch
from torch import Tensor


def box_mask(tops: Tensor, lefts: Tensor, bottoms: Tensor, rights: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, height, width) bool, true inside each box; edges (B,) int64, bottom and right exclusive."""
    rows = torch.arange(height, device=tops.device)
    columns = torch.arange(width, device=tops.device)
    in_rows = (rows >= tops[:, None]) & (rows < bottoms[:, None])
    in_columns = (columns >= lefts[:, None]) & (columns < rights[:, None])
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]
