"""`when: key=value[,value]`: conditions on other parameters, and the order that they require."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.space import grammar
from visionsweep.sweep.space.dimensions import Condition, Dimension, convert, values
from visionsweep.sweep.space.grid import restrict
from visionsweep.sweep.space.zips import choices_with
from visionsweep.text import did_you_mean


@dataclass(frozen=True)
class Clause:
    """One `key=value[,value]` as written, with the meanings of its values to a job."""

    key: str
    meanings: tuple[Any, ...]
    text: str


def read_when(key: str, when: Any) -> tuple[Clause, ...]:
    """Return the clauses of the `when` of parameter `key`: a string or a list of them."""
    texts = when if isinstance(when, list) else [when]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{key}: when: expected 'key=value' or a list of them, got {when!r}")
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
    """Return the dimensions that can be active, with their conditions, parents before children.

    `replaced` are the dimensions that a plain value fixed; their choices are still checked.
    `insisted` are swept on the command line: a fixed parent that rules one out is an error.
    """
    waiting = {dimension.key: dimension for dimension in searched}
    _check_parents(waiting, clauses, [*(key for d in searched for key in d.keys), *fixed])
    ready: list[Dimension] = []
    placed: dict[str, Dimension] = {}  # by each key that it sets
    while waiting:
        key = _next_ready(waiting, clauses)
        when = _decide(key, clauses.get(key, ()), placed, fixed, replaced)
        dimension = waiting.pop(key)
        if isinstance(when, tuple):
            ready.append(replace(dimension, when=when))
            placed |= dict.fromkeys(dimension.keys, ready[-1])
        elif key in insisted:
            raise ConfigError(f"{key}: swept, but active only when {when}; remove one of them")
    ordered = tuple(ready)
    for dimension in ordered:
        if restrict(ordered, {dimension.key: None}) is None:
            raise ConfigError(
                f"{dimension.key}: when: {dimension.when[0]} and its other conditions "
                "never hold together"
            )
    return ordered


def _check_parents(
    keys: Iterable[str], clauses: Mapping[str, Sequence[Clause]], known: Sequence[str]
) -> None:
    for key in keys:
        for clause in clauses.get(key, ()):
            if clause.key not in known:
                hint = did_you_mean(clause.key, known)
                raise ConfigError(
                    f"{key}: when: {clause.text}: {clause.key} is neither searched nor fixed in "
                    f"this sweep{hint or f'; set {clause.key}=..., or remove {key}'}"
                )


def _next_ready(waiting: Mapping[str, Dimension], clauses: Mapping[str, Sequence[Clause]]) -> str:
    """Return the first key whose parents are all placed."""
    open_keys = {key for dimension in waiting.values() for key in dimension.keys}
    for key in waiting:
        if not any(clause.key in open_keys for clause in clauses.get(key, ())):
            return key
    raise ConfigError(f"{', '.join(waiting)}: when: the conditions depend on each other")


def _decide(
    key: str,
    clauses: Sequence[Clause],
    placed: Mapping[str, Dimension],
    fixed: Mapping[str, str],
    replaced: Mapping[str, Dimension],
) -> tuple[Condition, ...] | str:
    """Return the conditions that a draw decides, or why a fixed value rules the dimension out."""
    when = []
    for clause in clauses:
        if clause.key in fixed:
            value = grammar.meaning(fixed[clause.key])
            others = tuple(other for other in clause.meanings if not grammar.same(other, value))
            if clause.key in replaced and values(replaced[clause.key].distribution) is not None:
                # for its error if one is not a choice
                _condition(key, replace(clause, meanings=others), replaced[clause.key])
            if len(others) < len(clause.meanings):
                continue
            return f"{clause.text}, and {clause.key}={fixed[clause.key]} is fixed"
        if clause.key not in placed:
            return f"{clause.text}, and {clause.key} is not active itself"
        when.append(_condition(key, clause, placed[clause.key]))
    return tuple(when)


def _condition(key: str, clause: Clause, parent: Dimension) -> Condition:
    """Return a clause with its parent's own choices. Raises `ConfigError` for one that is none."""
    if values(parent.distribution) is None:
        raise ConfigError(
            f"{key}: when: {clause.text}: {clause.key} is drawn from an interval; "
            "a condition needs a parameter with choices"
        )
    try:
        if parent.is_zip:
            chosen = [
                c for value in clause.meanings for c in choices_with(parent, {clause.key: value})
            ]
            return Condition(parent.key, tuple(dict.fromkeys(chosen)), clause.text)
        named = tuple(str(convert(parent.distribution, value)) for value in clause.meanings)
    except ValueError as error:
        raise ConfigError(
            f"{key}: when: {clause.text}: not a value of {clause.key}: {error}"
        ) from error
    return Condition(clause.key, tuple(dict.fromkeys(named)))
