"""The search space of a sweep: searched and fixed parameters, and when each is active.

Parsed from `hydra.sweeper.params`, `hydra.sweeper.default_params` and the command line, with
Hydra's override grammar and hydra-optuna-sweeper's distributions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from visionsweep.errors import ConfigError
from visionsweep.sweep.space import conditions, dimensions, grammar, grid
from visionsweep.sweep.space.dimensions import Dimension
from visionsweep.text import did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from optuna.trial import Trial


@dataclass(frozen=True)
class SearchSpace:
    """Dimensions, parents before their children, and what every job gets besides."""

    dimensions: tuple[Dimension, ...]
    fixed: dict[str, str]  # key -> right side of its override
    fixed_overrides: tuple[str, ...]  # verbatim; deletions

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Draw the parameters of `trial`, those of the active dimensions, in order."""
        params: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.is_active(params):
                params[dimension.key] = _draw(trial, dimension.key, dimension.distribution)
        return params

    def active(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return `params` without inactive ones, in the space's order; foreign keys come last."""
        kept: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.key in params and dimension.is_active(kept):
                kept[dimension.key] = params[dimension.key]
        searched = {dimension.key for dimension in self.dimensions}
        return kept | {key: value for key, value in params.items() if key not in searched}

    def overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a job's overrides: active `params`, then the fixed ones."""
        chosen = {**self.active(params), **self.fixed}
        return tuple(f"{key}={value}" for key, value in chosen.items()) + self.fixed_overrides

    def fixed_arguments(self) -> tuple[str, ...]:
        """Return the overrides that every job has."""
        return self.overrides({})

    def first(self) -> dict[str, Any]:
        """Return the configuration of first choices."""
        return grid.first(self.dimensions)

    def check_params(self, params: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return given parameters, perhaps not all, in the space's order and types.

        Leaves out parameters that are fixed to the given value. Raises `ConfigError` that begins
        with `where` for unknown keys, values outside their range or choices, and parameters that
        are inactive with the given ones.
        """
        given = grammar.plain(params, where)
        known = {dimension.key for dimension in self.dimensions}
        for key, value in given.items():
            if key in known:
                continue
            if key not in self.fixed:
                raise ConfigError(f"{where}: {key} is not searched{did_you_mean(key, known)}")
            try:
                dimensions.convert(CategoricalDistribution([self.fixed[key]]), value)
            except ValueError:
                raise ConfigError(
                    f"{where}: {key}={value}, but {key}={self.fixed[key]} is fixed; "
                    "remove one of them"
                ) from None
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.key not in given:
                continue
            value = given[dimension.key]
            for condition in dimension.when:
                if not condition.holds(found):
                    raise ConfigError(
                        f"{where}: {dimension.key}={value} is active only when {condition}; "
                        "give both, or remove it"
                    )
            try:
                found[dimension.key] = dimensions.convert(dimension.distribution, value)
            except ValueError as error:
                raise ConfigError(f"{where}: {dimension.key}={value}: {error}") from error
        return found

    def grid(self) -> list[dict[str, Any]]:
        """Return the distinct active configurations; see `grid.grid`."""
        return grid.grid(self.dimensions)

    def size(self) -> int | None:
        """Return the size of the grid; None if a dimension is continuous."""
        return grid.size(self.dimensions)

    def probes(self, is_group: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Return few configurations with each choice; see `grid.probes`."""
        return grid.probes(self.dimensions, is_group)

    def num_pairs(self, is_group: Callable[[str], bool]) -> int:
        """Return the number of pairs of choices of two config groups."""
        return grid.num_pairs(self.dimensions, is_group)

    def describe(self) -> list[str]:
        """Return one line per dimension."""
        width = max((len(dimension.key) for dimension in self.dimensions), default=0)
        return [f"{dimension.key:<{width}}   {dimension}" for dimension in self.dimensions]

    def fingerprint(self) -> dict[str, Any]:
        """Return the space as plain YAML, equal for equal spaces."""
        searched = {}
        for dimension in self.dimensions:
            searched[dimension.key] = dimensions.fingerprint(dimension.distribution)
            if dimension.when:
                searched[dimension.key]["when"] = [str(condition) for condition in dimension.when]
        return {
            "searched": searched,
            "fixed": dict(self.fixed),
            "deletions": list(self.fixed_overrides),
        }


def parse_space(
    params: Mapping[str, Any] | None,
    default_params: Mapping[str, Any] | None,
    arguments: Sequence[str],
    config_loader: "ConfigLoader | None" = None,
) -> SearchSpace:
    """Return the search space. Raises `ConfigError` with Hydra's reason for a bad override.

    `params` replace `default_params`, which are dropped if any argument sweeps. An argument with a
    plain value fixes its dimension; a sweep replaces the dimension but keeps its condition.
    `glob(...)` over a config group needs `config_loader`.
    """
    parsed = [grammar.parse(argument, config_loader) for argument in arguments]
    given = (
        {}
        if any(o.is_sweep_override() for o in parsed)
        else grammar.plain(default_params, "hydra.sweeper.default_params")
    )
    given |= grammar.plain(params, "hydra.sweeper.params")
    collected = _Collected()
    for key, value in given.items():
        space, clauses = _split(key, value)
        # `~key:` is a deletion without a value; `~key=null` deletes only a null.
        text = key if key.startswith("~") and space is None else f"{key}={grammar.text_of(space)}"
        collected.add(grammar.parse(text, config_loader), clauses)
    for override in parsed:
        collected.add(override)
    insisted = frozenset(
        override.get_key_element() for override in parsed if override.is_sweep_override()
    )
    fixed = collected.fixed
    ordered = conditions.resolve(
        [dimension for key, dimension in collected.searched.items() if key not in fixed],
        collected.clauses,
        fixed,
        collected.searched,
        insisted,
    )
    return SearchSpace(ordered, fixed, tuple(collected.verbatim))


def warnings_of(space: SearchSpace) -> list[str]:
    """Return warnings about dimensions that are legal but probably mistakes."""
    return [dimension.warning for dimension in space.dimensions if dimension.warning]


@dataclass
class _Collected:
    """The overrides so far; later ones replace earlier ones."""

    # including those that were fixed later
    searched: dict[str, Dimension] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    verbatim: list[str] = field(default_factory=list)
    clauses: dict[str, tuple[conditions.Clause, ...]] = field(default_factory=dict)

    def add(self, override: "Override", clauses: tuple[conditions.Clause, ...] = ()) -> None:
        key = override.get_key_element()
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
        self.searched[key] = Dimension(key, found, warning=grammar.warning_of(override, found))
        if clauses:
            self.clauses[key] = clauses


def _split(key: str, value: Any) -> tuple[Any, tuple[conditions.Clause, ...]]:
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


def _draw(trial: "Trial", key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )
