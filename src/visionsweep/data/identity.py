"""Copies of images: kept on one side of a split, and reported where they lead astray.

Identical files have the same bytes. Images that only look alike are found on request.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from visionsweep.data.cache import DecodedImages
from visionsweep.data.dataset import ALWAYS_TRAIN, ImageSet
from visionsweep.data.near_duplicates import find_near_duplicates
from visionsweep.errors import DataError

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]
IDENTICAL = "identical to"  # what copies are to each other, in messages


def group_copies(
    train: ImageSet, digests: Sequence[str], class_names: Sequence[str], near: int | None
) -> ImageSet:
    """Return the image set with `copy_of`, and with the groups joined that share a copy.

    ``digests``: one per image; ``near``: None, or the distance up to which images are copies that
    only look alike. Logs a line for copies, for copies with different labels, and for copies on
    both sides of the data's own split.
    """
    first = _first_of(digests)
    _report(train, first, class_names, IDENTICAL)
    if near is not None:
        pairs = find_near_duplicates(train.images, near)
        alike = _join(first, pairs)
        # Of identical ones it has been said.
        _report(train, _join(np.arange(len(first)), pairs), class_names, _similar(near))
        first = alike
    if (first == np.arange(len(first))).all():
        return train
    groups = None if train.groups is None else _join_groups(train.groups, first)
    return replace(train, groups=groups, copy_of=first.tolist())


def _similar(near: int) -> str:
    return f"similar (data.near_duplicates={near}) to"


def check_test(
    train: DecodedImages, test: DecodedImages, key: str, near: int | None
) -> Indices | None:
    """Raise DataError if a test file is in training or validation too; warn of similar images.

    Returns pairs (P, 2) of an image for training and a similar test image, once per test image;
    None without ``near``. ``key``: the setting that named the files.
    """
    place = {digest: index for index, digest in enumerate(train.digests)}
    twins = [(index, place[each]) for index, each in enumerate(test.digests) if each in place]
    if twins:
        index, twin = twins[0]
        raise DataError(
            f"{key}: {len(twins):,} of {len(test.paths):,} test files are in train too, e.g. "
            f"{test.paths[index]} = {train.paths[twin]}. Remove them from one of the two"
        )
    if near is None:
        return None
    pairs = find_near_duplicates(train.images, near, test.images)
    pairs = pairs[np.unique(pairs[:, 1], return_index=True)[1]]
    if len(pairs):
        twin, index = pairs[0]
        logger.warning(
            "%s of %s test images are %s one for training, e.g. %s = %s: test scores may be too "
            "good",
            *(f"{len(pairs):,}", f"{len(test.paths):,}", _similar(near)),
            *(test.paths[index], train.paths[twin]),
        )
    return pairs


def _first_of(digests: Sequence[str]) -> Indices:
    """Return (N,) the index of the first image with the same digest."""
    place: dict[str, int] = {}
    return np.array([place.setdefault(digest, index) for index, digest in enumerate(digests)])


def _report(train: ImageSet, first: Indices, class_names: Sequence[str], how: str) -> None:
    """Log what copies there are; ``first``: (N,) the first copy of each image."""
    copies = np.flatnonzero(first != np.arange(len(first)))
    if len(copies) == 0:
        return
    targets = train.targets.numpy()
    folds = np.array([ALWAYS_TRAIN] * len(first) if train.folds is None else train.folds)

    def explain(index: int) -> str:
        return f"{train.ids[index]} = {train.ids[first[index]]}"

    if train.folds is None:
        logger.info(
            "%s of %s images are %s an earlier one, e.g. %s; they stay on one side of the split",
            *(f"{len(copies):,}", f"{len(first):,}", how, explain(copies[0])),
        )
    elif len(across := copies[folds[copies] != folds[first[copies]]]):
        is_validation = set(folds.tolist()) == {ALWAYS_TRAIN, 0}
        parts = "training and validation" if is_validation else "different folds"
        logger.warning(
            "%s of %s images are %s one on another side of the data's own split (%s), e.g. %s: "
            "validation scores will be too good. Remove them from one side",
            *(f"{len(across):,}", f"{len(first):,}", how, parts, explain(across[0])),
        )
    if len(other := copies[targets[copies] != targets[first[copies]]]):
        index = other[0]
        logger.warning(
            "%s of %s images are %s one with another label, e.g. %s (%s, %s). Correct the labels",
            *(f"{len(other):,}", f"{len(first):,}", how, explain(index)),
            *(class_names[targets[index]], class_names[targets[first[index]]]),
        )


def _join_groups(groups: Sequence[str], first: Indices) -> list[str]:
    """Return the groups; those that share a copy are one, named by all of them."""
    names = list(dict.fromkeys(groups))
    number = {name: index for index, name in enumerate(names)}
    pairs = np.array([[number[groups[i]], number[groups[first[i]]]] for i in range(len(first))])
    root = _join(np.arange(len(names)), pairs)
    members: dict[int, list[str]] = {}
    for index, name in enumerate(names):
        members.setdefault(int(root[index]), []).append(name)
    joined = [each for each in members.values() if len(each) > 1]
    if joined:
        logger.warning(
            "%s groups of data.group share an image with another one and are split together, "
            "e.g. %s and %s",
            f"{sum(map(len, joined)):,}",
            *joined[0][:2],
        )
    return ["+".join(members[int(root[number[name]])]) for name in groups]


def _join(first: Indices, pairs: Indices) -> Indices:
    """Return (N,) the lowest index that each image is joined with, by `first` (N,) and `pairs`."""
    root: list[int] = first.tolist()

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for one, other in pairs.tolist():
        low, high = sorted((find(one), find(other)))
        root[high] = low
    return np.array([find(index) for index in range(len(root))])
