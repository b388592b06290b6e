"""Opens the study of a sweep: its space, history and grid, and whether they fit what is stored."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from optuna.distributions import check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.trial import Trial

from visionsweep.config.hydra_errors import target_problem
from visionsweep.errors import ConfigError
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.storage import open_storage
from visionsweep.sweep.stored import differences
from visionsweep.sweep.study import SweepStudy, past_trials
from visionsweep.sweep.warm_start import load_history
from visionsweep.text import masked

log = logging.getLogger(__name__)


def open_study(
    sweep: Sweep, storage: BaseStorage | None = None, requests: Sequence[int] = ()
) -> SweepStudy:
    """Open or create the study, in the sweep's own storage unless another is given.

    ``requests`` grows with each request to stop. Raises `GaveUp` if it does while the storage is
    locked.
    """
    settings = sweep.settings
    distributions = {dimension.key: dimension.distribution for dimension in sweep.space.dimensions}
    past = load_history(sweep, requests) if storage is None else []
    collapsed = [(sweep.space.collapse(params), values) for params, values in past]
    history = past_trials(collapsed, distributions)
    if len(history) < len(past):
        log.warning("warm start: %d of %d trials fit this search space", *(len(history), len(past)))
    study = SweepStudy(
        storage or open_storage(sweep.storage_url, requests),
        sweep.study_name,
        settings.directions,
        owner=sweep.current.id,
        make_sampler=sampler_factory(settings.sampler, sweep.current.seed),
        pruner=build_pruner(settings.pruner),
        prune_by=settings.prune_by,
        race_seeds=settings.seeds if settings.races else None,
        suggest=_suggest(sweep),
        check=_check(sweep),
        presets=[sweep.space.collapse(params) for params in settings.enqueue + sweep.portfolio],
        history=history,
        distributions=distributions,
    )
    _require_compatible(sweep, study, distributions)
    if sweep.grid is not None:
        done = [sweep.space.active(trial.params) for trial in study.trials()]
        valid = done[first_valid(sweep, study) :]
        study.presets = [*done, *(point for point in sweep.grid if point not in valid)]
    return study


def first_valid(sweep: Sweep, study: SweepStudy) -> int:
    """Return the number of the first trial that has the current config."""
    previous, current = sweep.previous, sweep.current
    if previous is None:
        return 0
    is_changed = differences(previous, previous.search, current.config, sweep.settings.free_keys)
    return len(study) if is_changed else current.valid_from


def _suggest(sweep: Sweep) -> Callable[[Trial], None]:
    custom = _custom_search_space(sweep.settings.custom_search_space)

    def suggest(trial: Trial) -> None:
        sweep.space.suggest(trial)
        # As upstream, which tells custom search spaces to look here for what is fixed.
        for key, value in sweep.space.fixed.items():
            trial.set_user_attr(key, masked(value))
        if custom is not None:
            custom(sweep.config, trial)
            _require_no_overlap(trial)

    return suggest


def _check(sweep: Sweep) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that checks the parameters of a trial that was enqueued with Optuna."""
    space = sweep.space
    return lambda given: space.collapse(space.check_params(given, "enqueued with Optuna"))


def _custom_search_space(dotpath: str | None) -> Callable[[Any, Trial], None] | None:
    if dotpath is None:
        return None
    try:
        function: Callable[[Any, Trial], None] = instantiate(
            {"_target_": dotpath, "_partial_": True}
        )
    except InstantiationException as error:
        raise ConfigError(f"hydra.sweeper.custom_search_space: {target_problem(error)}") from error
    return function


def _require_no_overlap(trial: Trial) -> None:
    for key in trial.params.keys() & trial.user_attrs.keys():
        raise ConfigError(
            f"{key}: is fixed to {trial.user_attrs[key]}, and drawn by "
            "hydra.sweeper.custom_search_space; remove one of them"
        )


def _require_compatible(sweep: Sweep, study: SweepStudy, distributions: dict[str, Any]) -> None:
    """Raise `ConfigError` if a parameter has other choices than in the stored trials."""
    for trial in study.trials():
        for key in (key for key in trial.distributions if key in distributions):
            try:
                check_distribution_compatibility(trial.distributions[key], distributions[key])
            except ValueError:
                hint = f" with hydra.sweeper.warm_start={sweep.sweep_dir}"
                raise ConfigError(
                    f"{key}: the choices of a parameter cannot change within one study; "
                    f"start a new one{hint if sweep.grid is None else ''}"
                ) from None
