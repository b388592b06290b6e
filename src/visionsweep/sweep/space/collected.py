"""What `params`, `default_params` and the command line give, put together key by key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from visionsweep.errors import ConfigError
from visionsweep.sweep.space import conditions, grammar, zip_groups, zips
from visionsweep.sweep.space.dimensions import Dimension

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override


@dataclass
class Collected:
    """The overrides so far; later ones replace earlier ones."""

    # including those that were fixed later
    searched: dict[str, Dimension] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    verbatim: list[str] = field(default_factory=list)
    clauses: dict[str, tuple[conditions.Clause, ...]] = field(default_factory=dict)

    def add_zip(self, group: zip_groups.Group, config_loader: "ConfigLoader | None" = None) -> None:
        """Add keys that move together."""
        dimension = zip_groups.dimension_of(group, config_loader)
        for key in dimension.keys:
            moved = self._zip_with(key)
            if moved is not None:
                raise ConfigError(f"{key}: is in two zips; remove it from one of them")
            if key in self.searched or key in self.fixed:
                raise _given_twice(key, dimension)
        self._search(dimension, group.when)

    def add(
        self,
        override: "Override",
        clauses: tuple[conditions.Clause, ...] = (),
        *,
        is_argument: bool = False,
    ) -> None:
        """Add an override, with its conditions; ``is_argument``: of the command line."""
        key = override.get_key_element()
        moved = self._zip_with(key)
        if moved is not None:
            if override.is_sweep_override() or not is_argument:
                raise _given_twice(key, moved)
            self._take_out(key, moved)
        # Verbatim: upstream would replace the list by the elements of extend_list(...).
        if override.is_delete() or override.is_list_extend():
            assert override.input_line is not None
            if clauses:
                raise ConfigError(
                    f"{override.input_line}: deletions and list extensions take no `when`"
                )
            self.verbatim.append(override.input_line)
            return
        found = grammar.distribution_of(override)
        if isinstance(found, str) and clauses:
            found = grammar.one_choice(override)
        if isinstance(found, str):
            self.fixed[key] = found
            return
        # Upstream keeps an earlier plain value and silently drops the later sweep.
        self.fixed.pop(key, None)
        self._search(Dimension(key, found, warning=grammar.warning_of(override, found)), clauses)

    def _search(self, dimension: Dimension, clauses: tuple[conditions.Clause, ...]) -> None:
        self.searched[dimension.key] = dimension
        if clauses:
            self.clauses[dimension.key] = clauses

    def _zip_with(self, key: str) -> Dimension | None:
        return next((d for d in self.searched.values() if d.is_zip and key in d.keys), None)

    def _take_out(self, key: str, moved: Dimension) -> None:
        """Leave `key` out of its zip, whose other keys stay where they are."""
        rest = zips.without(moved, key)
        found = self.searched.items()
        self.searched = {rest.key if d is moved else k: rest if d is moved else d for k, d in found}
        if moved.key in self.clauses:
            self.clauses[rest.key] = self.clauses.pop(moved.key)


def _given_twice(key: str, moved: Dimension) -> ConfigError:
    others = ", ".join(other for other in moved.keys if other != key)
    return ConfigError(
        f"{key}: moves with {others} in a zip, and is given by itself too; remove one"
    )


def read_given(
    default_params: Mapping[str, Any] | None, params: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[zip_groups.Group]]:
    """Return `params`, else `default_params`, and the groups under their key `zip`."""
    found: dict[str, Any] = {}
    groups: list[zip_groups.Group] = []
    for where, mapping in (("default_params", default_params), ("params", params)):
        where = f"hydra.sweeper.{where}"
        given = grammar.plain(mapping, where)
        if given.get(zip_groups.KEY, 0) is None:  # the default
            del given[zip_groups.KEY]
        elif zip_groups.KEY in given:
            groups = zip_groups.read(given[zip_groups.KEY], where) or []
            moved = {key for group in groups for key in group.columns}
            found = {key: value for key, value in found.items() if key not in moved}
        found |= given
    return found, groups


def split_when(key: str, value: Any) -> tuple[Any, tuple[conditions.Clause, ...]]:
    """Return the space and the conditions of a value of `params`."""
    if not isinstance(value, Mapping):
        return value, ()
    extra = [str(name) for name in value if name not in ("space", "when")]
    if extra or "space" not in value:
        raise ConfigError(
            f"{key}: expected {{space: ..., when: 'key=value'}}, "
            f"got the keys {', '.join(map(str, value)) or 'none'}"
        )
    if isinstance(value["space"], Mapping):
        raise ConfigError(f"{key}: space: expected an override's right side, got a mapping")
    return value["space"], conditions.read_when(key, value["when"]) if "when" in value else ()
