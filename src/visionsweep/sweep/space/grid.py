"""Enumeration of a search space: the grid, its size, and few configurations with every choice."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.space.dimensions import Condition, Dimension, choices, describe, values

MAX_PAIRS = 500  # of choices of config groups; composing one takes 70 ms or more, so of more ...
SAMPLED_PAIRS = 100  # ... only so many are tried before trial 0

Pick = Callable[[Dimension, Sequence[Any], Mapping[str, Any]], Any]


def grid(dimensions: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Return the distinct active configurations, the last dimension fastest.

    Raises `ConfigError` for a continuous dimension.
    """
    found: list[dict[str, Any]] = [{}]
    for dimension in dimensions:
        available = _discrete(dimension)
        found = [
            extended
            for params in found
            for extended in (
                [{**params, dimension.key: value} for value in available]
                if dimension.is_active(params)
                else [params]
            )
        ]
    return found


def size(dimensions: Sequence[Dimension]) -> int | None:
    """Return the size of the grid without building it; None if a dimension is continuous."""
    if any(values(dimension.distribution) is None for dimension in dimensions):
        return None
    parents = {condition.key for dimension in dimensions for condition in dimension.when}
    counts = [
        (dimension, len(_discrete(dimension)))
        for dimension in dimensions
        if dimension.key not in parents
    ]
    return sum(
        math.prod(count for dimension, count in counts if dimension.is_active(params))
        for params in grid([dimension for dimension in dimensions if dimension.key in parents])
    )


def _discrete(dimension: Dimension) -> Sequence[Any]:
    found = values(dimension.distribution)
    if found is None:
        raise ConfigError(
            f"{dimension.key}: {describe(dimension.distribution)} is continuous, but a grid needs "
            f"a list of values; use {dimension.key}=A,B,C or "
            f"{dimension.key}=range(start,stop,step)"
        )
    return found


def probes(
    dimensions: Sequence[Dimension], is_group: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Return few configurations with each choice, and each pair of choices of two config groups.

    Of more than MAX_PAIRS pairs, a random sample counts.
    Other dimensions leave their first choice only in probes of their own, so a failure names them.
    `is_group` gets a dimension's key as it is written, including `+` and `@package`.
    """
    found = _pairwise(
        dimensions, [dimension for dimension in dimensions if any(map(is_group, dimension.keys))]
    )
    if not found:
        found = [first(dimensions)]
    seen = {(key, str(value)) for params in found for key, value in params.items()}
    for dimension in dimensions:
        for choice in choices(dimension.distribution):
            if (dimension.key, str(choice)) in seen:
                continue
            allowed = restrict(dimensions, {dimension.key: choice})
            assert allowed is not None, f"{dimension.key} can never be active"
            params = _build(dimensions, allowed, _first)
            seen |= {(key, str(value)) for key, value in params.items()}
            found.append(params)
    return found


def first(dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """Return the active configuration of first choices."""
    return _build(dimensions, {}, _first)


def _first(dimension: Dimension, candidates: Sequence[Any], known: Mapping[str, Any]) -> Any:
    return candidates[0]


def _pairwise(dimensions: Sequence[Dimension], groups: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Return configurations with each possible pair of choices of two groups, greedily: few."""
    open_pairs: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for first, second in combinations(groups, 2):
        for left, right in product(choices(first.distribution), choices(second.distribution)):
            open_pairs[(first.key, str(left)), (second.key, str(right))] = {
                first.key: left,
                second.key: right,
            }

    if len(open_pairs) > MAX_PAIRS:
        kept = random.Random(0).sample(list(open_pairs), SAMPLED_PAIRS)
        open_pairs = {pair: open_pairs[pair] for pair in kept}

    def pairs_of(params: Mapping[str, Any]) -> set[tuple[tuple[str, str], ...]]:
        held = [(group.key, str(params[group.key])) for group in groups if group.key in params]
        return set(combinations(held, 2))

    def most_open(dimension: Dimension, candidates: Sequence[Any], known: Mapping[str, Any]) -> Any:
        # max() returns the first of equals: a dimension that is no group keeps its first choice.
        return max(
            candidates,
            key=lambda value: len(open_pairs.keys() & pairs_of({**known, dimension.key: value})),
        )

    found = []
    while open_pairs:
        pair, wanted = next(iter(open_pairs.items()))
        allowed = restrict(dimensions, wanted)
        if allowed is None:  # a choice that rules the other out
            del open_pairs[pair]
            continue
        params = _build(dimensions, allowed, most_open)
        found.append(params)
        for covered in pairs_of(params):
            open_pairs.pop(covered, None)
    return found


def num_pairs(dimensions: Sequence[Dimension], is_group: Callable[[str], bool]) -> int:
    """Return the number of pairs of choices of two config groups."""
    groups = [len(choices(d.distribution)) for d in dimensions if any(map(is_group, d.keys))]
    return sum(left * right for left, right in combinations(groups, 2))


def restrict(
    dimensions: Sequence[Dimension], wanted: Mapping[str, Any]
) -> dict[str, Sequence[Any]] | None:
    """Return the values of `wanted` and their parents with which all of `wanted` is active.

    None if there are none.
    """
    by_key = {dimension.key: dimension for dimension in dimensions}
    allowed: dict[str, Sequence[Any]] = {key: [value] for key, value in wanted.items()}
    # Exact, since a condition is a set of values of one parent: the sets are intersected.
    for condition in _conditions(by_key, list(wanted)):
        left = allowed.get(condition.key) or _discrete(by_key[condition.key])
        kept = [value for value in left if condition.allows(value)]
        if not kept:
            return None
        allowed[condition.key] = kept
    return allowed


def _conditions(by_key: Mapping[str, Dimension], keys: list[str]) -> Iterator[Condition]:
    """Yield the conditions of `keys`, of their parents, and so on."""
    seen = set(keys)
    for key in keys:  # grows while it is walked
        for condition in by_key[key].when:
            yield condition
            if condition.key not in seen:
                seen.add(condition.key)
                keys.append(condition.key)


def _build(
    dimensions: Sequence[Dimension], allowed: Mapping[str, Sequence[Any]], pick: Pick
) -> dict[str, Any]:
    """Return an active configuration; `pick` chooses among the allowed values."""
    certain = {key: left[0] for key, left in allowed.items() if len(left) == 1}
    params: dict[str, Any] = {}
    for dimension in dimensions:
        if dimension.is_active(params):
            candidates = allowed.get(dimension.key) or choices(dimension.distribution)
            params[dimension.key] = pick(dimension, candidates, {**certain, **params})
    return params
