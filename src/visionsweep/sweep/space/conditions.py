"""`when: key=value[,value]`: reads conditions, decides those on fixed values, orders parents before children."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.space import grammar
from visionsweep.sweep.space.dimensions import Condition, Dimension, convert, nearest, values
from visionsweep.sweep.space.grid import restrict


@dataclass(frozen=True)
class Clause:
    """One `key=value[,value]` as written: what the parent's value must mean."""

    key: str
    meanings: tuple[Any, ...]
    text: str


def read_when(key: str, when: Any) -> tuple[Clause, ...]:
    """Return the clauses of a `when`, one string or a list of them; ConfigError names the parameter it stands under."""
    texts = when if isinstance(when, list) else [when]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{key}: when: expected 'key=value' or a list of such, got {when!r}")
    return tuple(_clause(key, text) for text in texts)


def _clause(key: str, text: str) -> Clause:
    try:
        override = grammar.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{key}: when: {error}") from error
    meanings = None if override.is_delete() else grammar.elements(override)
    if meanings is None:
        raise ConfigError(f"{key}: when: expected 'key=value[,value]', got {text!r}")
    return Clause(override.get_key_element(), tuple(meanings), text)


def resolve(
    searched: Sequence[Dimension],
    clauses: Mapping[str, Sequence[Clause]],
    fixed: Mapping[str, str],
    replaced: Mapping[str, Dimension],
    insisted: frozenset[str],
) -> tuple[Dimension, ...]:
    """Return the dimensions that can be active, with their conditions, parents first and else as given.

    `replaced` are the dimensions that a plain value fixed: they still tell a misspelt choice. `insisted` were swept
    over on the command line: where a fixed parent rules one out, that is an error rather than a dropped dimension.
    """
    waiting = {dimension.key: dimension for dimension in searched}
    known = [*waiting, *fixed]
    for key in waiting:
        for clause in clauses.get(key, ()):
            if clause.key not in known:
                raise ConfigError(
                    f"{key}: when: {clause.text}: {clause.key} is neither searched nor given a value in this sweep"
                    + (
                        nearest(clause.key, known)
                        or f"; write {clause.key}=..., or leave {key} out"
                    )
                )
    placed: dict[str, Dimension] = {}
    while waiting:
        ready = [
            key
            for key in waiting
            if not any(clause.key in waiting for clause in clauses.get(key, ()))
        ]
        if not ready:
            raise ConfigError(
                f"{', '.join(waiting)}: when: the conditions wait for each other; break the circle"
            )
        key = ready[0]
        when = _decide(key, clauses.get(key, ()), placed, fixed, replaced)
        dimension = waiting.pop(key)
        if isinstance(when, tuple):
            placed[key] = replace(dimension, when=when)
        elif key in insisted:
            raise ConfigError(
                f"{key}: swept over, but active only when {when}; leave one of them out"
            )
    ordered = tuple(placed.values())
    for dimension in ordered:
        if restrict(ordered, {dimension.key: None}) is None:
            raise ConfigError(
                f"{dimension.key}: when: {dimension.when[0]} and its other conditions never hold together"
            )
    return ordered


def _decide(
    key: str,
    clauses: Sequence[Clause],
    placed: Mapping[str, Dimension],
    fixed: Mapping[str, str],
    replaced: Mapping[str, Dimension],
) -> tuple[Condition, ...] | str:
    """Return the conditions that a draw decides, or why a fixed value has decided against the dimension."""
    when = []
    for clause in clauses:
        if clause.key in fixed:
            value = grammar.meaning(fixed[clause.key])
            others = tuple(other for other in clause.meanings if not grammar.same(other, value))
            if clause.key in replaced and values(replaced[clause.key].distribution) is not None:
                _condition(
                    key, replace(clause, meanings=others), replaced[clause.key]
                )  # raises where one is no choice
            if len(others) < len(clause.meanings):
                continue
            return f"{clause.text}, and {clause.key}={fixed[clause.key]} is fixed"
        if clause.key not in placed:
            return f"{clause.text}, and {clause.key} is not active itself"
        when.append(_condition(key, clause, placed[clause.key]))
    return tuple(when)


def _condition(key: str, clause: Clause, parent: Dimension) -> Condition:
    """Return a clause in the words of its parent's distribution; ConfigError where it has none for it."""
    if values(parent.distribution) is None:
        raise ConfigError(
            f"{key}: when: {clause.text}: {clause.key} is drawn from an interval; "
            "a condition needs a parameter with choices"
        )
    try:
        named = tuple(str(convert(parent.distribution, value)) for value in clause.meanings)
    except ValueError as error:
        raise ConfigError(
            f"{key}: when: {clause.text}: not a value of {clause.key}: {error}"
        ) from error
    return Condition(clause.key, tuple(dict.fromkeys(named)))
