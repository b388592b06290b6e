"""The split into training and validation. The test split comes with the data."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visionsweep.data.dataset import ALWAYS_TRAIN
from visionsweep.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]
NUM_ORDERS = 8  # random orders of the groups to try; the most even result wins


def split_indices(
    targets: Indices,
    groups: Sequence[str] | None,
    *,
    val_fraction: float,
    fold: int | None,
    num_folds: int,
    seed: int,
    class_names: Sequence[str] | None = None,
    own_folds: Sequence[int] | None = None,
    copy_of: Sequence[int] | None = None,
) -> tuple[Indices, Indices]:
    """Return sorted indices for training and validation: disjoint, complete, stratified by class.

    Validation is fold `fold` of `num_folds` if `fold` is set, else the share `val_fraction`. No
    group lies on both sides. A class of one image or one group stays in training. The result
    depends only on the arguments. Raises DataError if a side would be empty.

    Without groups, copies stay with the first of them: its index is in `copy_of`. If the data
    brings its own split, `own_folds`, that is used instead: fold `fold` of it, or its only one.
    """
    if own_folds is not None:
        is_val = _own_validation(own_folds, fold)
        train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
        _warn_missing_classes(np.asarray(targets), train, val, class_names)
        return train, val
    _check_settings(val_fraction, fold, num_folds, seed)
    targets = np.asarray(targets, dtype=np.int64)
    rng = np.random.default_rng(seed)
    if groups is None:
        is_val = _split_copies(targets, copy_of, val_fraction, fold, num_folds, rng)
    else:
        is_val = _split_groups(targets, groups, val_fraction, fold, num_folds, rng)
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    how = (
        f"split.val_fraction={val_fraction:g}"
        if fold is None
        else f"split.fold={fold} of {num_folds}"
    )
    if len(train) == 0 or len(val) == 0:
        units = "" if groups is None else f" in {len(set(groups)):,} groups"
        raise DataError(
            f"{how} of {len(targets):,} images{units}, {len(np.unique(targets))} classes, leaves "
            f"{len(train):,} for training and {len(val):,} for validation. Change split.*, or add "
            f"images: a class needs 2{'' if groups is None else ' groups'} to be on both sides"
        )
    why = "a class of one image or one group stays in training"
    _warn_missing_classes(targets, train, val, class_names, why)
    return train, val


def fold_number(fold: int | str | None, num_folds: int) -> int | None:
    """Return `split.fold` as a number. Raises `ConfigError` for other text."""
    if fold is None or isinstance(fold, int):
        return fold
    raise ConfigError(
        f"split.fold: expected 0..{num_folds - 1} (split.num_folds={num_folds}), all or null, "
        f"got {fold}"
    )


def check_folds(
    own_folds: Sequence[int] | None,
    num_folds: int,
    key: str,
    *,
    targets: Sequence[int] | npt.NDArray[np.int64],
    groups: Sequence[str] | None = None,
) -> None:
    """Raise `ConfigError` unless every fold 0..num_folds-1 exists, and no other.

    ``key`` sets their number. Data without folds of its own can be split into as many as its
    largest class has images, or as it has groups.
    """
    if own_folds is None:
        largest = int(np.bincount(np.asarray(targets)).max())
        most = largest if groups is None else min(largest, len(set(groups)))
        if num_folds > most:
            what = "images in its largest class" if most == largest else "groups"
            raise ConfigError(
                f"{key}: expected at most {most:,}, since the data has {most:,} {what}, "
                f"got {num_folds:,}"
            )
        return
    available = sorted(set(own_folds) - {ALWAYS_TRAIN})
    if available == list(range(num_folds)):
        return
    if len(available) == 1:
        raise ConfigError(
            f"{key}: the data has validation images of its own, which are one fold, so there are "
            f"no {num_folds}; leave its validation part out, or train without folds"
        )
    numbers = ", ".join(map(str, available))
    if available == list(range(len(available))):
        raise ConfigError(
            f"{key}: the data has {len(available)} folds of its own ({numbers}), not {num_folds}; "
            f"set {key}={len(available)}"
        )
    raise ConfigError(
        f"{key}: the data has folds of its own ({numbers}); number them 0 to "
        f"{len(available) - 1}, and set {key}={len(available)}"
    )


def _own_validation(folds: Sequence[int], fold: int | None) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of the validation images of the data's own split."""
    fold_of = np.asarray(folds)
    available = sorted(set(fold_of[fold_of != ALWAYS_TRAIN].tolist()))
    if fold is None and len(available) == 1:
        fold = available[0]
    if fold not in available:
        numbers = ", ".join(map(str, available))
        raise ConfigError(
            f"split.fold: the data has its own split; expected one of its folds ({numbers}), "
            f"got {'null' if fold is None else fold}"
        )
    is_val: npt.NDArray[np.bool_] = fold_of == fold
    if is_val.all():
        raise DataError(
            f"split.fold={fold}: every image is in that fold, and none is left for training"
        )
    return is_val


def _check_settings(val_fraction: float, fold: int | None, num_folds: int, seed: int) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(
            f"split.val_fraction: expected a share between 0 and 1, got {val_fraction}"
        )
    if num_folds < 2:
        raise ConfigError(f"split.num_folds: expected at least 2, got {num_folds}")
    if fold is not None and not 0 <= fold < num_folds:
        raise ConfigError(
            f"split.fold: expected 0..{num_folds - 1} (split.num_folds={num_folds}), got {fold}"
        )
    if seed < 0:
        raise ConfigError(f"seed: expected 0 or more, got {seed}")


def _split_copies(
    targets: Indices,
    copy_of: Sequence[int] | None,
    val_fraction: float,
    fold: int | None,
    num_folds: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of the validation images; copies are on one side, if at all possible."""
    if copy_of is not None:
        first, image_of = np.unique(np.asarray(copy_of), return_inverse=True)
        is_val = _split_images(targets[first], val_fraction, fold, num_folds, rng)[image_of]
        if is_val.any():
            return is_val
        logger.warning(
            "split: the %s distinct images are too few to keep copies on one side, so the same "
            "image may be in training and validation",
            f"{len(first):,}",
        )
    return _split_images(targets, val_fraction, fold, num_folds, rng)


def _split_images(
    targets: Indices,
    val_fraction: float,
    fold: int | None,
    num_folds: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of the validation images; each class is split by itself."""
    counts = np.bincount(targets)
    order = rng.permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    order = order[counts[targets[order]] > 1]
    is_val = np.zeros(len(targets), dtype=np.bool_)
    if fold is not None:
        # Dealt like cards, class by class: folds differ by at most one image, also in each class.
        is_val[order[fold::num_folds]] = True
        return is_val
    num_val = _share_out(counts, val_fraction)
    rank = np.arange(len(order)) - np.searchsorted(targets[order], targets[order])
    is_val[order[rank < num_val[targets[order]]]] = True
    return is_val


def _share_out(counts: Indices, fraction: float) -> Indices:
    """Return the validation images per class: largest remainders, on each side at least 1 of 2."""
    exact = counts * fraction
    num_val = np.floor(exact).astype(np.int64)
    missing = round(int(counts.sum()) * fraction) - int(num_val.sum())
    num_val[np.argsort(num_val - exact, kind="stable")[:missing]] += 1
    return np.where(counts > 1, np.clip(num_val, 1, np.maximum(counts - 1, 1)), 0)


def _split_groups(
    targets: Indices,
    groups: Sequence[str],
    val_fraction: float,
    fold: int | None,
    num_folds: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of the validation images; no group is split."""
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    table = np.zeros((len(names), int(targets.max(initial=0)) + 1), dtype=np.int64)
    np.add.at(table, (group_of, targets), 1)
    num_groups_of_class = (table > 0).sum(axis=0)
    # The only group of a class stays in training: validating an untrained class says nothing.
    movable = np.flatnonzero(~(table[:, num_groups_of_class == 1] > 0).any(axis=1))
    shares = [val_fraction, 1 - val_fraction] if fold is None else [1 / num_folds] * num_folds
    part_of = _assign_groups(table[movable], np.array(shares), rng)
    in_val = np.zeros(len(names), dtype=np.bool_)
    in_val[movable[part_of == (0 if fold is None else fold)]] = True
    if fold is None:  # changing a fold would put images in two folds, or in none
        _cover_classes(table, in_val)
    is_val: npt.NDArray[np.bool_] = in_val[group_of]
    assert not set(names[group_of[is_val]]) & set(names[group_of[~is_val]])
    return is_val


def _assign_groups(
    table: Indices, shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> Indices:
    """Return the part (G,) of each group, splitting each class of `table` (G, K) by `shares` (P,).

    Greedy as scikit-learn's StratifiedGroupKFold, but for parts of any size: large groups first,
    each to the part where the squared relative error of the class counts grows least. The best of
    NUM_ORDERS random orders wins.
    """
    # As one more class, the total keeps the sizes of the parts even.
    counts = np.column_stack([table, table.sum(axis=1)]).astype(np.float64)
    totals = np.maximum(counts.sum(axis=0), 1)
    wanted = shares[:, None] * totals
    best, best_error = np.zeros(len(table), dtype=np.int64), np.inf
    for _ in range(NUM_ORDERS):
        order = rng.permutation(len(table))
        order = order[np.argsort(-counts[order, -1], kind="stable")]
        lacking = wanted.copy()
        part_of = np.zeros(len(table), dtype=np.int64)
        for group in order:
            part = int(np.argmax(lacking @ (counts[group] / totals**2)))
            part_of[group] = part
            lacking[part] -= counts[group]
        error = float(np.abs(lacking / totals).max(initial=0))
        if error < best_error:
            best, best_error = part_of, error
    return best


def _cover_classes(table: Indices, in_val: npt.NDArray[np.bool_]) -> None:
    """Move single groups of `table` (G, K) until every class is on both sides, if possible.

    Changes `in_val` (G,).
    """
    has_class = table > 0
    for side in (False, True):
        for label in np.argsort(has_class.sum(axis=0), kind="stable"):
            other = in_val != side
            if has_class[~other, label].any() or not has_class[other, label].any():
                continue
            # A group may move if the side that it leaves keeps all its classes.
            is_spare = ((has_class[other].sum(axis=0) > 1) | ~has_class).all(axis=1)
            candidates = np.flatnonzero(other & has_class[:, label] & is_spare)
            if len(candidates):
                in_val[candidates[np.argmin(table[candidates].sum(axis=1))]] = side


def _warn_missing_classes(
    targets: Indices,
    train: Indices,
    val: Indices,
    class_names: Sequence[str] | None,
    why: str = "",
) -> None:
    counts = np.bincount(targets)
    for part, indices in (("training", train), ("validation", val)):
        missing = np.flatnonzero(
            (counts > 0) & (np.bincount(targets[indices], minlength=len(counts)) == 0)
        )
        if len(missing) == 0:
            continue
        names = [str(label) if class_names is None else class_names[label] for label in missing[:5]]
        shown = ", ".join(
            f"{name} ({counts[label]})" for name, label in zip(names, missing, strict=False)
        )
        logger.warning(
            "split: %d of %d classes have no image in %s: %s%s%s",
            len(missing),
            int((counts > 0).sum()),
            part,
            shown,
            ", ..." if len(missing) > 5 else "",
            f"; {why}" if why else "",
        )
