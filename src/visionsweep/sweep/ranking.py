"""The best trial by one objective, and the Pareto set of several.

A trial is anything with a number, a state and values. NaN and infinities never win. If only some
trials have all of their seeds, these come first: a lucky seed must not win over a confirmed value,
and values over different seeds cannot be compared.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class Ranked(Protocol):
    """A trial that can be ranked."""

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def values(self) -> tuple[float, ...] | None: ...
    @property
    def has_all_seeds(self) -> bool: ...


T = TypeVar("T", bound=Ranked)


def best(trials: Iterable[T], directions: Sequence[str]) -> T | None:
    """Return the best complete trial, the earlier of two equal ones; None without one.

    With several objectives: of the Pareto set the one with the best first objective.
    """
    candidates = pareto(trials, directions) if len(directions) > 1 else _complete(trials)
    return min(
        candidates,
        key=lambda t: (not t.has_all_seeds, _costs(t, directions)[0], t.number),
        default=None,
    )


def pareto(trials: Iterable[T], directions: Sequence[str]) -> list[T]:
    """Return the complete trials that no other dominates, by number."""
    front: list[tuple[tuple[float, ...], T]] = []
    # In this order no trial is dominated by a later one: comparing with the front is enough.
    for costs, trial in sorted(
        ((_costs(t, directions), t) for t in _complete(trials)), key=lambda pair: pair[0]
    ):
        if not any(_dominates(other, costs) for other, _ in front):
            front.append((costs, trial))
    return sorted((trial for _, trial in front), key=lambda trial: trial.number)


def ranked(trials: Iterable[T], directions: Sequence[str]) -> list[T]:
    """Return the complete trials, best first; with several objectives the Pareto set first."""
    complete = _complete(trials)
    front = (
        {trial.number for trial in pareto(complete, directions)} if len(directions) > 1 else set()
    )
    return sorted(
        complete,
        key=lambda t: (
            *(bool(front) and t.number not in front, not t.has_all_seeds),
            *(_costs(t, directions)[0], t.number),
        ),
    )


def _complete(trials: Iterable[T]) -> list[T]:
    return [
        t
        for t in trials
        if t.state == "complete" and t.values and all(map(math.isfinite, t.values))
    ]


def dominates(one: Sequence[float], other: Sequence[float], directions: Sequence[str]) -> bool:
    """Return whether the values `one` are as good as `other` in all objectives, better in one."""
    return _dominates(_as_costs(one, directions), _as_costs(other, directions))


def _costs(trial: Ranked, directions: Sequence[str]) -> tuple[float, ...]:
    assert trial.values is not None
    return _as_costs(trial.values, directions)


def _as_costs(values: Sequence[float], directions: Sequence[str]) -> tuple[float, ...]:
    return tuple(-v if d == "maximize" else v for v, d in zip(values, directions, strict=True))


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
