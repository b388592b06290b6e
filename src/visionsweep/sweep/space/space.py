"""The search space of a sweep: searched and fixed parameters, and when each is active.

Parsed from `hydra.sweeper.params`, `hydra.sweeper.default_params` and the command line, with
Hydra's override grammar and hydra-optuna-sweeper's distributions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from visionsweep.errors import ConfigError
from visionsweep.sweep.space import conditions, dimensions, grammar, grid, zip_groups, zips
from visionsweep.sweep.space.collected import Collected, read_given, split_when
from visionsweep.sweep.space.dimensions import Dimension
from visionsweep.sweep.space.zip_names import expand
from visionsweep.text import did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from optuna.trial import Trial


@dataclass(frozen=True)
class SearchSpace:
    """Dimensions, parents before their children, and what every job gets besides."""

    dimensions: tuple[Dimension, ...]
    fixed: dict[str, str]  # key -> right side of its override
    fixed_overrides: tuple[str, ...]  # verbatim; deletions

    @property
    def searched_keys(self) -> tuple[str, ...]:
        """The keys of the config that a trial may set."""
        return tuple(key for dimension in self.dimensions for key in dimension.keys)

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        """Draw the parameters of `trial`, those of the active dimensions, in order."""
        params: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.is_active(params):
                params[dimension.key] = _draw(trial, dimension.key, dimension.distribution)
        return params

    def collapse(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters as Optuna knows them: a zip instead of its keys."""
        for dimension in self.dimensions:
            if dimension.is_zip:
                params = zips.collapse(dimension, params)
        return dict(params)

    def active(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return `params`, collapsed, without inactive ones, in the space's order; others last."""
        params = self.collapse(params)
        kept: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.key in params and dimension.is_active(kept):
                kept[dimension.key] = params[dimension.key]
        searched = {dimension.key for dimension in self.dimensions}
        return kept | {key: value for key, value in params.items() if key not in searched}

    def overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return a job's overrides: active `params`, then the fixed ones."""
        chosen = {**expand(self.active(params)), **self.fixed}
        return tuple(f"{key}={value}" for key, value in chosen.items()) + self.fixed_overrides

    def fixed_arguments(self) -> tuple[str, ...]:
        """Return the overrides that every job has."""
        return self.overrides({})

    def first(self) -> dict[str, Any]:
        """Return the configuration of first choices."""
        return expand(grid.first(self.dimensions))

    def check_params(self, params: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return given parameters, perhaps not all, in the space's order and types.

        A key of a zip brings the others. Leaves out parameters that are fixed to the given value.
        Raises `ConfigError` that begins with `where` for unknown keys, values outside their range
        or choices, and parameters that are inactive with the given ones.
        """
        given = grammar.plain(params, where)
        for dimension in self.dimensions:
            if dimension.is_zip:
                try:
                    given = zips.require_position(dimension, given)
                except ValueError as error:
                    raise ConfigError(f"{where}: {error}") from error
        known = {dimension.key for dimension in self.dimensions}
        for key, value in given.items():
            if key in known:
                continue
            if key not in self.fixed:
                hint = did_you_mean(key, self.searched_keys)
                raise ConfigError(f"{where}: {key} is not searched{hint}")
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
        return expand(found)

    def grid(self) -> list[dict[str, Any]]:
        """Return the distinct active configurations, collapsed; see `grid.grid`."""
        return grid.grid(self.dimensions)

    def size(self) -> int | None:
        """Return the size of the grid; None if a dimension is continuous."""
        return grid.size(self.dimensions)

    def probes(self, is_group: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Return few configurations with each choice, collapsed; see `grid.probes`."""
        return grid.probes(self.dimensions, is_group)

    def num_pairs(self, is_group: Callable[[str], bool]) -> int:
        """Return the number of pairs of choices of two config groups."""
        return grid.num_pairs(self.dimensions, is_group)

    def describe(self) -> list[str]:
        """Return one line per key."""
        width = max(map(len, self.searched_keys), default=0)
        rows = [row for dimension in self.dimensions for row in zips.describe(dimension).items()]
        return [f"{key:<{width}}   {text}" for key, text in rows]

    def fingerprint(self) -> dict[str, Any]:
        """Return the space as plain YAML, equal for equal spaces."""
        searched = {}
        for dimension in self.dimensions:
            for key, described in zips.fingerprint(dimension).items():
                searched[key] = described
                if dimension.when:
                    described["when"] = [str(condition) for condition in dimension.when]
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
    plain value fixes its dimension, or takes its key out of a zip; a sweep replaces the dimension
    but keeps its condition. `glob(...)` over a config group needs `config_loader`.
    """
    parsed = [grammar.parse(argument, config_loader) for argument in arguments]
    is_swept = any(o.is_sweep_override() for o in parsed)
    given, groups = read_given({} if is_swept else default_params, params)
    collected = Collected()
    for key, value in given.items():
        if key == zip_groups.KEY and groups:
            for group in groups:
                collected.add_zip(group, config_loader)
            continue
        space, clauses = split_when(key, value)
        # `~key:` is a deletion without a value; `~key=null` deletes only a null.
        text = key if key.startswith("~") and space is None else f"{key}={grammar.text_of(space)}"
        collected.add(grammar.parse(text, config_loader), clauses)
    for override in parsed:
        collected.add(override, is_argument=True)
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
