"""The images of a run that have a copy with another label, or in another part of the data."""

import numpy as np
import torch
from numpy.typing import NDArray

from visionsweep.data.dataset import ALWAYS_TRAIN, ImageDataset
from visionsweep.run.assemble import RunParts
from visionsweep.rundir.copies import MAX_PAIRS, Copies

_MAX_SIDE = 96  # pixels of a picture

Indices = NDArray[np.int64]


def conflicting_copies(parts: RunParts) -> Copies | None:
    """Return the pairs of images that are, or look like, each other and should not; None if none.

    An image is compared with the first of its copies (`ImageSet.copy_of`), a test image with one
    for training. Those with different labels come first.
    """
    train, test = parts.dataset.train, parts.dataset.test
    targets, ids, split = train.targets.numpy(), train.ids, _splits(parts)
    if test is not None:  # its images are numbered after those for training
        targets = np.concatenate([targets, test.targets.numpy()])
        ids, split = ids + test.ids, np.append(split, ["test"] * len(test))
    pairs = _all_pairs(parts.dataset)
    has_other_label = targets[pairs[:, 0]] != targets[pairs[:, 1]]
    is_across = (split[pairs[:, 0]] != split[pairs[:, 1]]) & (split[pairs] != "").all(axis=1)
    order = np.argsort(~has_other_label, kind="stable")
    chosen = pairs[order[(has_other_label | is_across)[order]]]
    if len(chosen) == 0:
        return None
    shown = chosen[:MAX_PAIRS]
    return Copies(
        ids=np.array([[ids[i] for i in pair] for pair in shown.tolist()], dtype=np.str_),
        classes=np.array(parts.dataset.class_names)[targets[shown]],
        splits=split[shown],
        images=_pictures(parts.dataset, shown),
        num_pairs=len(chosen),
    )


def _splits(parts: RunParts) -> NDArray[np.str_]:
    """Return the part (N,) of each image for training or validation.

    If the data has several folds of its own, these, which are the same for the runs of all folds.
    """
    folds = parts.dataset.train.folds
    if folds is not None and len(set(folds) - {ALWAYS_TRAIN}) > 1:
        return np.array(["train" if fold == ALWAYS_TRAIN else f"fold {fold}" for fold in folds])
    split = np.full(len(parts.dataset.train), "", dtype="<U5")
    split[parts.train_indices], split[parts.val_indices] = "train", "val"
    return split


def _all_pairs(dataset: ImageDataset) -> Indices:
    """Return pairs (P, 2) of an image and its copy, which comes later."""
    pairs = np.empty((0, 2), dtype=np.int64)
    if dataset.train.copy_of is not None:
        first = np.array(dataset.train.copy_of)
        copies = np.flatnonzero(first != np.arange(len(first)))
        pairs = np.stack([first[copies], copies], axis=1)
    if dataset.test is not None and dataset.test.like_train is not None:
        offset = np.array([0, len(dataset.train)])
        pairs = np.concatenate([pairs, dataset.test.like_train + offset])
    return pairs


def _pictures(dataset: ImageDataset, pairs: Indices) -> NDArray[np.uint8]:
    """Return the images (P, 2, C, h, w) of pairs, every n-th pixel of large ones."""
    rows = pairs.reshape(-1)
    is_test = rows >= len(dataset.train)
    images = dataset.train.images[torch.from_numpy(np.where(is_test, 0, rows))].numpy()
    if dataset.test is not None and is_test.any():
        images = images.copy()
        test_rows = rows[is_test] - len(dataset.train)
        images[is_test] = dataset.test.images[torch.from_numpy(test_rows)].numpy()
    step = -(-max(images.shape[2:]) // _MAX_SIDE)
    small = np.ascontiguousarray(images[:, :, ::step, ::step])
    return small.reshape(len(pairs), 2, *small.shape[1:])
