"""From a trial's parameters to a job: its overrides, its composed config, and whether every choice composes at all."""

import copy
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.hydra_errors import one_line
from visionsweep.errors import ConfigError
from visionsweep.sweep.composition import Composition
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.space.space import SearchSpace


class Composer:
    """Composes the jobs of one sweep."""

    def __init__(
        self, context: HydraContext, config: DictConfig, space: SearchSpace, settings: SweepSettings
    ) -> None:
        """`config` is what Hydra composed for the sweep itself."""
        self._composition = Composition(context.config_loader, config)
        self._fixed: DictConfig | None = None
        self._space = space
        self._settings = settings
        self._first_seed = self._read_first_seed() if settings.seeds > 1 else 0

    def overrides(self, number: int, params: Mapping[str, Any], seed_index: int) -> tuple[str, ...]:
        """Return the complete overrides of one job of a trial."""
        overrides = self._space.overrides(params)
        if self._settings.seeds > 1:
            overrides += (
                f"{self._settings.seed_key}={self._first_seed + seed_index}",
                f"hydra.sweep.subdir={number}/seed_{seed_index}",
            )
        return overrides

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return a job's config, `hydra` included."""
        return self._composition.compose(overrides)

    def check(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Compose a configuration; return its overrides. Raises `ConfigError` that names them."""
        overrides = self._space.overrides(params)
        try:
            self.compose(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{shown(overrides)}: {one_line(error)}") from error
        return overrides

    def is_group(self, key: str) -> bool:
        """Return whether an override's key names a config group."""
        return self._composition.is_group(key)

    def fixed_config(self) -> dict[str, Any]:
        """Return what every job has in common, resolved: the config of a job without the searched parameters."""
        try:
            config = self.compose(self._space.fixed_arguments())
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(one_line(error)) from error
        self._require_numbered_directories(config)
        return resolve(config)

    def _require_numbered_directories(self, config: DictConfig) -> None:
        config = copy.deepcopy(config)
        with open_dict(config.hydra.job):
            config.hydra.job.num, config.hydra.job.id = 1234, "1234"
        if str(config.hydra.sweep.subdir) != "1234":
            written = OmegaConf.to_container(config.hydra.sweep)["subdir"]  # type: ignore[call-overload, index]
            raise ConfigError(
                f"hydra.sweep.subdir: a trial's directory is its number: expected ${{hydra.job.num}}, got {written}"
            )

    def value_of(self, key: str | None) -> Any:
        """Return a key's value in the fixed config; None where the app has no such key."""
        if key is None:
            return None
        if self._fixed is None:
            self._fixed = self.compose(self._space.fixed_arguments())
        return OmegaConf.select(self._fixed, key)

    def _read_first_seed(self) -> int:
        key = self._settings.seed_key
        if any(dimension.key == key for dimension in self._space.dimensions):
            raise ConfigError(
                f"{key}: is set by hydra.sweeper.seeds={self._settings.seeds}, so it cannot be searched"
            )
        value = self.value_of(key)
        if not isinstance(value, int):
            raise ConfigError(
                f"hydra.sweeper.seed_key: expected the config's key of the seed, a whole number, got '{key}' = {value}"
            )
        return value


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return a job's config as plain containers, without `hydra`; what cannot be resolved stays as it is written."""
    config = copy.deepcopy(config)
    with open_dict(config.hydra.job):
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        return {str(key): _plain(_resolved(config, str(key))) for key in config if key != "hydra"}
    finally:
        HydraConfig.instance().cfg = before


def _resolved(config: DictConfig, key: str) -> Any:
    node = config._get_node(key)
    try:
        if OmegaConf.is_config(node):
            return OmegaConf.to_container(node, resolve=True, enum_to_str=True)
        return config[key]
    except OmegaConfBaseException:
        return (
            OmegaConf.to_container(node, enum_to_str=True)
            if OmegaConf.is_config(node)
            else str(node)
        )


def _plain(value: Any) -> Any:
    """Return a value with what YAML cannot say as text: paths and enums."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, PurePath) else value


def shown(overrides: Sequence[str]) -> str:
    """Return overrides as one types them."""
    return " ".join(overrides) or "(no overrides)"
