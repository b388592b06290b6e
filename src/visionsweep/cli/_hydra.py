"""Private parts of Hydra that decide what a config can do. No other module of `cli` touches them.

tests/cli/test_hydra_private.py has one test for each, so that an upgrade that changes one says
which.
"""

import functools
from collections.abc import Callable
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal import logging_config
from hydra._internal.core_plugins import importlib_resources_config_source as hydras
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser

from visionsweep.config.allowed import VARIABLE, is_allowed_by_user
from visionsweep.config.unknown_keys import key_paths
from visionsweep.errors import ConfigError
from visionsweep.program import fail

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


def unknown_flags(arguments: list[str]) -> list[str]:
    """Return the arguments that look like flags but are none of Hydra's."""
    parser = get_args_parser()
    parser.error = fail  # type: ignore[method-assign]  # one line
    _, unknown = parser.parse_known_intermixed_args(arguments)
    return unknown


def composed_keys() -> list[str]:
    """Return every key of the config as it is without arguments; nothing if it has mistakes."""
    try:
        with initialize_config_module("visionsweep.conf"):
            return list(key_paths(compose("config")))
    except Exception:  # the message that needs them does without
        return []
