"""The images of a run that have a copy with another label, or on the other side of the split."""

import numpy as np
import torch
from numpy.typing import NDArray

from visionsweep.run.assemble import RunParts
from visionsweep.rundir.copies import MAX_PAIRS, Copies

_MAX_SIDE = 96  # pixels of a picture


def conflicting_copies(parts: RunParts) -> Copies | None:
    """Return the pairs of images that are, or look like, each other and should not; None if none.

    An image is compared with the first of its copies (`ImageSet.copy_of`). Those with different
    labels come first.
    """
    train = parts.dataset.train
    if train.copy_of is None:
        return None
    first = np.array(train.copy_of)
    copies = np.flatnonzero(first != np.arange(len(first)))
    targets = train.targets.numpy()
    split = np.full(len(first), "", dtype="<U5")
    split[parts.train_indices], split[parts.val_indices] = "train", "val"
    originals = first[copies]
    has_other_label = targets[copies] != targets[originals]
    is_across = (split[copies] != split[originals]) & (split[copies] != "")
    is_across &= split[originals] != ""
    order = np.argsort(~has_other_label, kind="stable")
    chosen = order[(has_other_label | is_across)[order]]
    if len(chosen) == 0:
        return None
    shown = chosen[:MAX_PAIRS]
    pairs = np.stack([originals[shown], copies[shown]], axis=1)
    names = np.array(parts.dataset.class_names)
    return Copies(
        ids=np.array([[train.ids[i] for i in pair] for pair in pairs.tolist()], dtype=np.str_),
        classes=names[targets[pairs]],
        splits=split[pairs],
        images=_pictures(train.images[torch.from_numpy(pairs.reshape(-1))].numpy(), len(pairs)),
        num_pairs=len(chosen),
    )


def _pictures(images: NDArray[np.uint8], num_pairs: int) -> NDArray[np.uint8]:
    """Return (P, 2, C, h, w) of (2 P, C, H, W), every n-th pixel of large ones."""
    step = -(-max(images.shape[2:]) // _MAX_SIDE)
    small = np.ascontiguousarray(images[:, :, ::step, ::step])
    return small.reshape(num_pairs, 2, *small.shape[1:])
