"""Folds of images whose predictions exist already: what is chosen on some is judged on the rest.

A choice looks better on the images that it was made on than on others (Cawley and Talbot 2010).
Cross-fitting makes it again without each fold and predicts that fold with it, so that no image is
judged by a choice that it took part in.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

NUM_FOLDS = 10

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def group_indices(groups: NDArray[np.str_] | None, num_images: int) -> Indices:
    """Return the group (N,) of each image, counted from 0; an image without one is its own."""
    if groups is None:
        return np.arange(num_images)
    names = [name or f"\0{row}" for row, name in enumerate(groups.tolist())]
    group_of: Indices = np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)
    return group_of


def deal_folds(
    targets: Indices, group_of: Indices, num_folds: int = NUM_FOLDS, seed: int = 0
) -> Indices:
    """Return the fold (N,) of each image: whole groups, each class spread evenly.

    Groups in random order are dealt like cards, class by class (the most frequent one of the group,
    rare classes first). With fewer groups than folds there are as many folds as groups.
    """
    num_groups = int(group_of.max()) + 1
    table = np.zeros((num_groups, int(targets.max()) + 1), dtype=np.int64)
    np.add.at(table, (group_of, targets), 1)
    class_of = table.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(num_groups)
    rarity = np.bincount(class_of, minlength=table.shape[1])
    order = order[np.lexsort((class_of[order], rarity[class_of[order]]))]
    fold_of_group = np.empty(num_groups, dtype=np.int64)
    fold_of_group[order] = np.arange(num_groups) % min(num_folds, num_groups)
    fold_of: Indices = fold_of_group[group_of]
    return fold_of


def cross_fitted(
    predict: Callable[[NDArray[np.bool_], NDArray[np.bool_]], Floats], fold_of: Indices
) -> Floats:
    """Return (N, K) predictions of each image by a choice made without its fold.

    ``predict``: takes the masks (N,) of the images to choose on and of those to predict, returns
    the predictions (M, K) of the latter. With a single fold it chooses and predicts on all.
    """
    parts, rows = [], []
    for fold in range(int(fold_of.max()) + 1):
        held_out = fold_of == fold
        chosen_on = ~held_out if not held_out.all() else held_out
        parts.append(predict(chosen_on, held_out))
        rows.append(np.flatnonzero(held_out))
    order = np.argsort(np.concatenate(rows))
    joined: Floats = np.concatenate(parts)[order]
    return joined
