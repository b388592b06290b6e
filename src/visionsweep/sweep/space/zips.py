"""A zip: keys that move together, one dimension of the space. `zip_names` tells how it is named."""

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import CategoricalDistribution

from visionsweep.sweep.space import dimensions
from visionsweep.sweep.space.dimensions import Dimension, convert
from visionsweep.sweep.space.zip_names import choice_of, name_of, values_of
from visionsweep.text import param_text


def make_zip(columns: Mapping[str, list[Any]]) -> Dimension:
    """Return the dimension of columns of one length. That of a single key is an ordinary one."""
    if len(columns) == 1:
        ((key, column),) = columns.items()
        return Dimension(key, CategoricalDistribution(_distinct(column)))
    rows = dict.fromkeys(choice_of(row) for row in zip(*columns.values(), strict=True))
    return Dimension(name_of(list(columns)), CategoricalDistribution(list(rows)))


def _distinct(column: Iterable[Any]) -> list[Any]:
    return list({param_text(value): value for value in column}.values())


def columns_of(dimension: Dimension) -> dict[str, list[Any]]:
    """Return the values of each key of a zip, position by position."""
    assert isinstance(dimension.distribution, CategoricalDistribution)
    rows = [values_of(choice) for choice in dimension.distribution.choices]  # type: ignore[arg-type]
    columns = map(list, zip(*rows, strict=True))
    return dict(zip(dimension.keys, columns, strict=True))


def without(dimension: Dimension, key: str) -> Dimension:
    """Return a zip of two keys or more without one of them."""
    return make_zip({k: column for k, column in columns_of(dimension).items() if k != key})


def choices_with(dimension: Dimension, given: Mapping[str, Any]) -> list[str]:
    """Return the choices of a zip that give its keys the `given` values; other keys do not matter.

    Raises ValueError, with what is expected, for a value that the key has at no position.
    """
    columns = columns_of(dimension)
    assert isinstance(dimension.distribution, CategoricalDistribution)
    found = [str(choice) for choice in dimension.distribution.choices]
    rows = dict(zip(found, zip(*columns.values(), strict=True), strict=True))
    for position, (key, column) in enumerate(columns.items()):
        if key in given:
            try:
                value = convert(CategoricalDistribution(_distinct(column)), given[key])
            except ValueError as error:
                raise ValueError(f"{key}={param_text(given[key])}: {error}") from error
            text = param_text(value)
            found = [choice for choice in found if param_text(rows[choice][position]) == text]
    return found


def collapse(dimension: Dimension, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` with a zip instead of its keys.

    If they are not all there, or have no such position, nothing is changed.
    """
    if not all(key in params for key in dimension.keys):
        return dict(params)
    try:
        found = choices_with(dimension, params)
    except ValueError:
        return dict(params)
    others = {key: value for key, value in params.items() if key not in dimension.keys}
    return {dimension.key: found[0], **others} if found else dict(params)


def require_position(dimension: Dimension, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with a zip instead of those of its keys that are there, perhaps not all.

    Raises ValueError, with what is expected, if they do not say one position.
    """
    named = {key: given[key] for key in dimension.keys if key in given}
    if not named:
        return dict(given)
    found = choices_with(dimension, named)
    if len(found) != 1:
        shown = " ".join(f"{key}={param_text(value)}" for key, value in named.items())
        if found:
            missing = [key for key in dimension.keys if key not in named]
            raise ValueError(f"{shown}: {len(found)} positions have it; give {missing[0]} too")
        assert isinstance(dimension.distribution, CategoricalDistribution)
        listed = ", ".join(map(str, dimension.distribution.choices))
        raise ValueError(
            f"{shown}: not at one position of {dimension.key}; expected one of {listed}"
        )
    others = {key: value for key, value in given.items() if key not in named}
    return {dimension.key: found[0], **others}


def describe(dimension: Dimension) -> dict[str, str]:
    """Return a text for people for each key that a dimension sets."""
    if not dimension.is_zip:
        return {dimension.key: str(dimension)}
    when = " and ".join(map(str, dimension.when))
    return {
        key: " | ".join(map(str, column))
        + f"   with {', '.join(other for other in dimension.keys if other != key)}"
        + (f"   when {when}" if when else "")
        for key, column in columns_of(dimension).items()
    }


def fingerprint(dimension: Dimension) -> dict[str, dict[str, Any]]:
    """Return plain YAML for each key that a dimension sets; for a zip position by position."""
    if not dimension.is_zip:
        return {dimension.key: dimensions.fingerprint(dimension.distribution)}
    return {
        key: {
            # NaN is not equal to itself
            "choices": ["nan" if item != item else item for item in column],
            "with": [other for other in dimension.keys if other != key],
        }
        for key, column in columns_of(dimension).items()
    }
