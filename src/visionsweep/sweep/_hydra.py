"""Private parts of Hydra and hydra-optuna-sweeper. No other module of the sweep touches them.

tests/sweep/test_hydra_private.py has one test for each, so that an upgrade that changes one says
which.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Set the values of `overrides` in a composed config, as the last step of Hydra's composition.

    Raises what Hydra raises. Without this a job costs 70 ms of composition instead of 3 ms.
    """
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def raw_value(override: Override) -> Any:
    """Return an override's value with quotes and casts, which `Override.value` takes away."""
    return override._value


def escaped(value: Any) -> str:
    """Return a parsed value as an override's right side; `a,b` without quotes becomes ``a\\,b``."""
    return Override._get_value_element_as_str(value)


def create_distribution(override: Override) -> BaseDistribution | str:
    """Return what hydra-optuna-sweeper draws for an override; a plain value comes back as text."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    found = create_optuna_distribution_from_override(override)
    assert isinstance(found, (BaseDistribution, str))
    return found


def get_singletons() -> Any:
    """Return the state of Hydra's singletons (plugins, stored configs) for another process."""
    return Singleton.get_state()


def set_singletons(state: Any) -> None:
    """Replace the state of Hydra's singletons by that of another process."""
    Singleton.set_state(state)
