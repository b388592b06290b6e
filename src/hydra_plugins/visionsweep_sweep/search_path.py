"""The config search path of `visionsweep train`. Small, since every start of Hydra imports it."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin

PACKAGED = "pkg://visionsweep.conf"
SCHEMA = "visionsweep_schema"


class OwnConfigs(SearchPathPlugin):
    """Finds configs in the `conf/` of the current directory first, then in visionsweep's own.

    Acts only if the app's configs are visionsweep's: on the command line and in a notebook after
    `hydra.initialize_config_module("visionsweep.conf")`.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put `conf/` before the packaged configs, and register their schema.

        Raises `ConfigError` if `conf/` seems to belong to another program.
        """
        if not any(element.path == PACKAGED for element in search_path.get_path()):
            return
        # Imported here, since other apps do not need it.
        import visionsweep.config.schema  # noqa: F401

        own = Path("conf").absolute()
        if own.is_dir():
            primary = (own / "config").with_suffix(".yaml")
            if primary.is_file() and SCHEMA not in primary.read_text(encoding="utf-8"):
                from visionsweep.errors import ConfigError

                raise ConfigError(
                    f"{primary} would replace visionsweep's own, but lacks its schema "
                    f"('- {SCHEMA}', first in the defaults); start the command in another directory"
                )
            main = SearchPathQuery(provider="main", path=PACKAGED)
            search_path.prepend("conf/ here", f"file://{own}", main)
