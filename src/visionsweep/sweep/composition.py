"""From a trial's parameters to its jobs: their overrides and their composed configs."""

import copy
import pickle
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.hydra_errors import one_line
from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import run_place
from visionsweep.sweep import _hydra
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.space.space import SearchSpace

_NEEDS_NO_DEFAULTS = "hydra.sweep."  # of `hydra.*`, only these keys select nothing in the defaults


class Composer:
    """Composes the jobs of one sweep.

    Hydra composes each selection of config groups once. The values of a job are then set in a copy,
    which takes 3 ms instead of 70 ms. Hydra also applies values last, with the same function, so
    the result is the same.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, space: SearchSpace, settings: SweepSettings
    ) -> None:
        """`config` is what Hydra composed for the sweep itself."""
        self._loader = context.config_loader
        self._config = config
        self._space = space
        self._settings = settings
        self._parser = OverridesParser.create()
        self._composed: dict[tuple[str, ...], bytes] = {}  # group overrides -> pickled config
        self._is_group: dict[str, bool] = {}
        self._fixed: DictConfig | None = None
        self._first_seed = self._read_first_seed() if settings.seeds > 1 else 0

    def overrides(self, number: int, params: Mapping[str, Any], seed_index: int) -> tuple[str, ...]:
        """Return the complete overrides of one job of a trial."""
        overrides = self._space.overrides(params)
        if self._settings.seeds > 1:
            overrides += (
                f"{self._settings.seed_key}={self._first_seed + seed_index}",
                f"hydra.sweep.subdir={run_place(number, seed_index)}",
            )
        return overrides

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return a job's config, including `hydra`. Raises what Hydra raises."""
        parsed = self._parser.parse_overrides(list(overrides))
        if any(_needs_hydra(override) for override in parsed):
            return self._compose_anew(overrides)
        values = [override for override in parsed if self._is_value(override)]
        config = self._copy_of(tuple(str(o.input_line) for o in parsed if not self._is_value(o)))
        try:
            _hydra.apply_overrides(config, values)
        except Exception:
            return self._compose_anew(overrides)  # for Hydra's own message
        config.hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
        config.hydra.overrides.hydra += [o.input_line for o in parsed if o.is_hydra_override()]
        return config

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
        name = key.lstrip("+~").partition("@")[0]
        if name not in self._is_group:
            self._is_group[name] = bool(self._loader.get_group_options(name))
        return self._is_group[name]

    def fixed_config(self) -> dict[str, Any]:
        """Return the resolved config of a job without the searched parameters."""
        try:
            config = self.compose(self._space.fixed_arguments())
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(one_line(error)) from error
        _require_numbered_directories(config)
        return resolve(config)

    def value_of(self, key: str | None) -> Any:
        """Return a key's value in the fixed config; None if the app has no such key."""
        if key is None:
            return None
        if self._fixed is None:
            self._fixed = self.compose(self._space.fixed_arguments())
        return OmegaConf.select(self._fixed, key)

    def _read_first_seed(self) -> int:
        key = self._settings.seed_key
        if any(dimension.key == key for dimension in self._space.dimensions):
            raise ConfigError(
                f"{key}: cannot be searched, since hydra.sweeper.seeds={self._settings.seeds} "
                "sets it"
            )
        value = self.value_of(key)
        if not isinstance(value, int):
            raise ConfigError(
                "hydra.sweeper.seed_key: expected the config's key of the seed, an integer, "
                f"got '{key}' = {value}"
            )
        return value

    def _is_value(self, override: Override) -> bool:
        return not self.is_group(override.key_or_group) or isinstance(override.value(), dict)

    def _copy_of(self, groups: tuple[str, ...]) -> DictConfig:
        if groups not in self._composed:
            composed = self._compose_anew(groups)
            self._composed[groups] = pickle.dumps(composed, pickle.HIGHEST_PROTOCOL)
        config: DictConfig = pickle.loads(self._composed[groups])
        return config

    def _compose_anew(self, overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self._loader.load_sweep_config(self._config, list(overrides))
        return config


def _needs_hydra(override: Override) -> bool:
    is_hydra = override.is_hydra_override()
    may_select = is_hydra and not override.key_or_group.startswith(_NEEDS_NO_DEFAULTS)
    return may_select or override.is_sweep_override()


def _require_numbered_directories(config: DictConfig) -> None:
    config = copy.deepcopy(config)
    with open_dict(config.hydra.job):
        config.hydra.job.num, config.hydra.job.id = 1234, run_place(1234)
    if str(config.hydra.sweep.subdir) != run_place(1234):
        written = OmegaConf.to_container(config.hydra.sweep)["subdir"]  # type: ignore[call-overload, index]
        raise ConfigError(
            "hydra.sweep.subdir: expected ${hydra.job.num}, since a trial's directory is its "
            f"number, got {written}"
        )


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return a job's config as plain containers, without `hydra`.

    A key that cannot be resolved stays as it is written.
    """
    config = copy.deepcopy(config)
    with open_dict(config.hydra.job):
        config.hydra.job.num, config.hydra.job.id = 0, run_place(0)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        return {str(key): _plain(_resolved(config, str(key))) for key in config if key != "hydra"}
    finally:
        HydraConfig.instance().cfg = before


def _resolved(config: DictConfig, key: str) -> Any:
    try:
        value = config[key]
        if OmegaConf.is_config(value):
            return OmegaConf.to_container(value, resolve=True, enum_to_str=True)
        return value
    except OmegaConfBaseException:
        return OmegaConf.to_container(config, enum_to_str=True)[key]  # type: ignore[call-overload, index]


def _plain(value: Any) -> Any:
    """Return a value with paths and enums, which YAML cannot express, as text."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, PurePath) else value


def shown(overrides: Sequence[str]) -> str:
    """Return overrides as they are typed on the command line."""
    return " ".join(overrides) or "(no overrides)"
