"""Samplers and pruners from their configs.

A sampler's random state is lost with its process, so each trial gets a new sampler, seeded with
(seed, trial number): trial n is drawn the same whether or not the sweep was killed before it.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

from visionsweep.config.allowed import PRUNERS, SAMPLERS
from visionsweep.config.hydra_errors import target_problem
from visionsweep.errors import ConfigError
from visionsweep.text import first_line

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

MakeSampler = Callable[[int], "BaseSampler"]

_GRID = "optuna.samplers.GridSampler"
_QMC = "optuna.samplers.QMCSampler"


def is_grid(sampler: Mapping[str, Any]) -> bool:
    """Return whether the sampler is a plain grid, which the sweep enumerates itself."""
    return sampler.get("_target_") == _GRID


def trial_seed(seed: int, number: int) -> int:
    """Return the 32-bit seed of one trial."""
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def sampler_factory(config: Mapping[str, Any], seed: int) -> MakeSampler:
    """Return a function that makes a trial's sampler. Raises `ConfigError` for bad settings."""
    from optuna.samplers import RandomSampler

    if is_grid(config):  # draws nothing: every parameter is given
        return lambda number: RandomSampler(seed=trial_seed(seed, number))
    make = _partial(config, "hydra.sweeper.sampler", SAMPLERS)
    if "seed" not in config:  # a sampler of the user
        return lambda number: make()
    if config["_target_"] == _QMC:
        # One scrambled sequence for the whole sweep; only parameters outside it use the trial.
        if config.get("independent_sampler") is not None:
            return lambda number: make(seed=seed)
        return lambda number: make(
            seed=seed, independent_sampler=RandomSampler(seed=trial_seed(seed, number))
        )
    return lambda number: make(seed=trial_seed(seed, number))


def build_pruner(config: Mapping[str, Any] | None) -> "BasePruner":
    """Return the pruner of `hydra.sweeper.pruner`."""
    from optuna.pruners import NopPruner

    if config is None:
        return NopPruner()
    pruner: BasePruner = _call(
        _partial(config, "hydra.sweeper.pruner", PRUNERS), "hydra.sweeper.pruner"
    )
    return pruner


def _partial(config: Mapping[str, Any], key: str, targets: Set[str]) -> Callable[..., Any]:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        make: functools.partial[Any] = instantiate(
            dict(config), _partial_=True, _convert_="all", _execution_whitelist_=sorted(targets)
        )
    except InstantiationException as error:
        raise ConfigError(f"{key}: {target_problem(error)}") from error
    return functools.partial(_call, make, key)


def _call(make: Callable[..., Any], key: str, /, **arguments: Any) -> Any:
    from optuna.exceptions import ExperimentalWarning

    from visionsweep.sweep._optuna import missing_package

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of `group`, once per trial
            made = make(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{key}: {first_line(error)}") from error
    package = missing_package(made)
    if package is not None:
        name = type(made).__name__
        raise ConfigError(f"{key}: {name} needs a package; install it with: pip install {package}")
    return made
