"""`params: {zip: {key: [values], ...}}`, read: the groups of keys that move together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution

from visionsweep.errors import ConfigError
from visionsweep.sweep.space import conditions, grammar
from visionsweep.sweep.space.dimensions import Dimension, values
from visionsweep.sweep.space.zips import make_zip

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

KEY = "zip"
_EXPECTED = "expected {key: [values], key: [values]}, or a list of such groups"


@dataclass(frozen=True)
class Group:
    """Keys that move together, as `params` give them."""

    where: str  # the setting
    columns: dict[str, Any]  # key -> its values, a list or a sweep as text
    when: tuple[conditions.Clause, ...] = ()


def read(value: Any, where: str) -> list[Group] | None:
    """Return the groups under the key `zip` of `where`; None if a config key of that name is meant.

    A config key is one whose value is no mapping or list, or that has ``{space: TEXT, when: ...}``.
    """
    if not isinstance(value, Mapping | list):
        return None
    where = f"{where}.{KEY}"
    if isinstance(value, Mapping):
        if "space" in value and not isinstance(value["space"], Mapping | list):
            return None
        value = [value]
    if not value:
        raise ConfigError(f"{where}: is empty; {_EXPECTED}")
    return [_group(item, where) for item in value]


def _group(item: Any, where: str) -> Group:
    columns = item
    when: tuple[conditions.Clause, ...] = ()
    if isinstance(item, Mapping) and isinstance(item.get("space"), Mapping):
        columns = item["space"]
        extra = [str(name) for name in item if name not in ("space", "when")]
        if extra:
            raise ConfigError(f"{where}: {', '.join(extra)}: stands beside `space`; move it there")
        when = conditions.read_when(where, item["when"]) if "when" in item else ()
    if not isinstance(columns, Mapping):
        raise ConfigError(
            f"{where}: {_EXPECTED}, got {grammar.text_of(columns)}. For a config key named {KEY}, "
            f"give its values as text: '{KEY}: choice(...)'"
        )
    if not columns:
        raise ConfigError(f"{where}: is empty; {_EXPECTED}")
    return Group(where, {str(key): given for key, given in columns.items()}, when)


def dimension_of(group: Group, config_loader: "ConfigLoader | None" = None) -> Dimension:
    """Return the dimension of a group.

    Raises `ConfigError` if a column is no list of values, or the lengths differ.
    """
    found = {
        key: _column(key, given, group.where, config_loader) for key, given in group.columns.items()
    }
    lengths = {key: len(column) for key, column in found.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise ConfigError(f"{group.where}: {counts} values; each key needs equally many")
    return make_zip(found)


def _column(
    key: str, given: Any, where: str, config_loader: "ConfigLoader | None" = None
) -> list[Any]:
    """Return the values of a key, as a distribution has them."""
    wanted = f"{where}: {key}: expected a list of values, got"
    items = given if isinstance(given, list) else [given]
    if not items:
        raise ConfigError(f"{wanted} an empty one")
    return [
        value
        for item in items
        for value in _values(key, item, wanted, config_loader, is_alone=items is not given)
    ]


def _values(
    key: str, item: Any, wanted: str, config_loader: "ConfigLoader | None", *, is_alone: bool
) -> Sequence[Any]:
    """Return the values of one item of a column: one, or if it is alone those of its sweep."""
    if isinstance(item, Mapping):
        raise ConfigError(f"{wanted} a mapping")
    override = grammar.parse(f"{key}={grammar.text_of(item)}", config_loader)
    is_sweep = override.is_sweep_override()
    if override.is_delete() or override.is_list_extend() or (is_sweep and not is_alone):
        raise ConfigError(f"{wanted} {override.input_line} in it")
    distribution = grammar.distribution_of(override)
    if isinstance(distribution, str):
        distribution = grammar.one_choice(override)
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices  # `values` would leave out those that are repeated
    found = values(distribution)
    if found is None:
        raise ConfigError(f"{wanted} {grammar.text_of(item)}")
    return found
