"""`confirm=multirun/STUDY`: which configurations run again, and as which search space.

The best configurations of the study and its baseline, the fixed config without the searched
parameters. They are chosen once and stored with the new sweep: the study may grow meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.trial import Trial

from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import SWEEP
from visionsweep.rundir.usable import usable
from visionsweep.sweep._optuna import fixed_params
from visionsweep.sweep.composition import Composer, as_written
from visionsweep.sweep.past_trials import complete_trials
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.space import grammar
from visionsweep.sweep.space.dimensions import Dimension
from visionsweep.sweep.space.space import SearchSpace
from visionsweep.sweep.stored import Stored, read_stored, used_seeds

KEY = "hydra.sweeper.confirm"
MIN_ROUNDS = 3  # before the first look: two seeds say next to nothing of the spread between seeds
_MISSING = object()


@dataclass(frozen=True)
class Candidates:
    """The configurations to compare; the baseline is the first."""

    study: str  # its directory
    num_searched: int  # complete configurations that the others were chosen from
    trials: list[int | None]  # their numbers in the study; None: the baseline, if it was no trial
    params: list[dict[str, Any]]

    def as_plain(self, settings: SweepSettings) -> dict[str, Any]:
        """Return what `sweep.yaml` stores; with the settings, which must not change either."""
        return {**vars(self), "top": settings.confirm_top}


def stored_candidates(previous: Stored | None) -> Candidates | None:
    """Return the candidates of a sweep that is resumed, or None."""
    plain = None if previous is None else previous.search.get("confirm")
    if plain is None:
        return None
    names = ("study", "num_searched", "trials", "params")
    return Candidates(**{name: plain[name] for name in names})


def choose(composer: Composer, settings: SweepSettings, requests: Sequence[int] = ()) -> Candidates:
    """Choose the candidates from the study that `settings` name.

    ``composer``: of the sweep without searched parameters. Raises `ConfigError` if there is no such
    study, or nothing to compare in it.
    """
    assert settings.confirm is not None
    directory = Path(settings.confirm)
    with usable(directory, KEY):
        study = read_stored(directory)
    if study is None:
        raise ConfigError(f"{KEY}: {directory} holds no sweep (no {SWEEP}); give multirun/STUDY")
    _require_new_seeds(study, composer, settings)
    trials = [
        trial
        for trial in complete_trials(directory, study, settings, KEY, requests)
        if trial.number >= study.valid_from
    ]
    sign = -1 if settings.directions[0] == "maximize" else 1
    most = max((trial.num_seeds for trial in trials), default=1)
    ranked = sorted(  # values over fewer seeds cannot be compared with those over all
        trials, key=lambda trial: (trial.num_seeds < most, sign * trial.values[0], trial.number)
    )
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    seed_key = settings.seed_key
    distinct: list[tuple[int, dict[str, Any]]] = []
    for trial in ranked:
        params = {key: value for key, value in trial.params.items() if key != seed_key}
        if params and all(params != other for _, other in distinct):
            distinct.append((trial.number, params))
    if not distinct:
        raise ConfigError(
            f"{KEY}: no trial of {directory} is complete, or it searched nothing but the seed; "
            "there is nothing to confirm"
        )
    baseline = _baseline(composer, [key for key in keys if key != seed_key])
    number = None
    if baseline is None:  # the defaults cannot be composed or named: the first trial instead
        number, baseline = min(distinct, key=lambda pair: pair[0])
    same = _composed(composer, baseline)
    others = [
        (n, params) for n, params in distinct if n != number and _composed(composer, params) != same
    ][: settings.confirm_top]
    if not others:
        raise ConfigError(
            f"{KEY}: {directory} has no complete configuration besides the baseline; there is "
            "nothing to confirm"
        )
    return Candidates(
        str(settings.confirm),
        len(distinct),
        [number, *(n for n, _ in others)],
        [baseline, *(params for _, params in others)],
    )


def _require_new_seeds(study: Stored, composer: Composer, settings: SweepSettings) -> None:
    """Raise `ConfigError` if a run would repeat a seed of the study, which was chosen by it."""
    key, used = settings.seed_key, used_seeds(study)
    first = composer.value_of(key)
    if not isinstance(first, int) or study.search["seed_key"] != key:
        return
    last = first + settings.seeds - 1
    if any(low <= last and first <= high for low, high in used):
        raise ConfigError(
            f"{key}: the seeds {first} to {last} must be new, but the study {settings.confirm} "
            f"used {', '.join(_range_text(*pair) for pair in used)}; set {key}="
            f"{max(high for _, high in used) + 1}"
        )


def _range_text(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _baseline(composer: Composer, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return the values that the fixed config gives the searched parameters, or None.

    Those that no override can express are left out: the fixed config has them anyway.
    """
    if not composer.has_defaults():
        return None
    config = composer.fixed_config()
    choices = config.hydra.runtime.choices
    found = {}
    for key in keys:
        name = key.lstrip("+~")
        if composer.is_group(key):
            value = choices.get(name, _MISSING)
        else:
            value = OmegaConf.select(config, name, default=_MISSING)
        if isinstance(value, str):
            value = grammar.quoted(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            found[key] = value
    return found or None


def _composed(composer: Composer, params: Mapping[str, Any]) -> dict[str, Any]:
    overrides = tuple(f"{key}={grammar.text_of(value)}" for key, value in params.items())
    return as_written(composer.compose((*composer.fixed_arguments(), *overrides)))


@dataclass(frozen=True)
class ListedSpace(SearchSpace):
    """A search space that holds some configurations and nothing between them."""

    points: tuple[dict[str, Any], ...] = ()

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Give `trial` the configuration that it was enqueued with."""
        given = fixed_params(trial)
        params = {}
        for dimension in self.dimensions:
            if dimension.key in given:
                choices = dimension.distribution.choices  # type: ignore[attr-defined]
                params[dimension.key] = trial.suggest_categorical(dimension.key, choices)
        return params

    def grid(self) -> list[dict[str, Any]]:
        """Return the configurations."""
        return [dict(point) for point in self.points]

    def size(self) -> int | None:
        """Return their number."""
        return len(self.points)

    def probes(self, is_group: object) -> list[dict[str, Any]]:
        """Return all of them: other combinations of their values may not compose."""
        return self.grid()

    def num_pairs(self, is_group: object) -> int:
        """Return 0: no pairs are tried."""
        return 0

    def first(self) -> dict[str, Any]:
        """Return the first one."""
        return dict(self.points[0])


def listed_space(candidates: Candidates, fixed: SearchSpace) -> ListedSpace:
    """Return the space of the candidates, with what is `fixed` for all of them."""
    keys = dict.fromkeys(key for params in candidates.params for key in params)
    dimensions = []
    for key in keys:
        values: list[Any] = []
        for params in candidates.params:
            if key in params and not any(grammar.same(params[key], value) for value in values):
                values.append(params[key])
        dimensions.append(Dimension(key, CategoricalDistribution(values)))
    points = tuple(dict(params) for params in candidates.params)
    return ListedSpace(tuple(dimensions), fixed.fixed, fixed.fixed_overrides, points)


def check_confirm(settings: SweepSettings, space: SearchSpace) -> None:
    """Raise `ConfigError` for settings that a confirmation cannot have."""
    if not settings.is_grid:
        raise ConfigError(
            f"{KEY}: runs every configuration, which needs hydra/sweeper/sampler=grid; use "
            "confirm=multirun/STUDY, which sets this and more"
        )
    if len(settings.directions) > 1:
        raise ConfigError(f"{KEY}: compares one objective, and this study has several")
    if space.dimensions:
        raise ConfigError(
            f"{space.searched_keys[0]}: a confirmation searches nothing; give it one value"
        )
    if settings.seeds < MIN_ROUNDS:
        raise ConfigError(
            f"hydra.sweeper.seeds: a confirmation needs at least {MIN_ROUNDS} new seeds, "
            f"got {settings.seeds}"
        )
