"""Private parts of Hydra that decide what a config can do. No other module of `cli` touches them.

tests/cli/test_hydra_private.py has one test for each, so that an upgrade that changes one says
which.
"""

import functools
from collections.abc import Callable
from typing import Any

from hydra._internal import logging_config
from hydra._internal.core_plugins import importlib_resources_config_source as hydras
from hydra._internal.sources_registry import SourcesRegistry

from visionsweep.config.allowed import VARIABLE, is_allowed_by_user
from visionsweep.errors import ConfigError

_GIVEN_BY_CONFIGS = "hydra.searchpath in "  # Hydra's name for them, also if they are typed


def check_logging_with(check: Callable[[dict[str, Any]], None]) -> None:
    """Have `check` called with each logging config, resolved, before Hydra opens its files."""
    configure = getattr(logging_config.configure_logging, "__wrapped__", None)
    configure = configure or logging_config.configure_logging

    @functools.wraps(configure)
    def checked(config: dict[str, Any], execution_whitelist: Any = None) -> None:
        check(config)
        configure(config, execution_whitelist)

    logging_config.configure_logging = checked


class ImportlibResourcesConfigSource(hydras.ImportlibResourcesConfigSource):
    """Packages of configs. Python runs a package's code to find its files.

    Has the name of Hydra's own class, so that Hydra, as it registers that one, keeps this one.
    """

    def _get_resources(self) -> Any:
        is_given = self.provider.startswith(_GIVEN_BY_CONFIGS)
        if is_given and not is_allowed_by_user(f"{self.path}.x"):
            raise ConfigError(
                f"hydra.searchpath: pkg://{self.path} would run the code of that package; name its "
                f"folder (file://FOLDER), or start with {VARIABLE}='{self.path}.*'"
            )
        return super()._get_resources()


def trust_no_packages() -> None:
    """Let `hydra.searchpath` name only packages that the environment allows."""
    source = ImportlibResourcesConfigSource
    SourcesRegistry.instance().types[source.scheme()] = source
