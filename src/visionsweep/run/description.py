"""The config of a run: resolved, typed, and compared with that of the run to resume."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.difference import difference
from visionsweep.config.paths import resolve_paths, shown
from visionsweep.config.schema import Config
from visionsweep.config.secrets import without_secrets
from visionsweep.config.unknown_keys import refuse_unknown_keys
from visionsweep.errors import ConfigError
from visionsweep.rundir.description import read_config
from visionsweep.text import first_line

# A run may be resumed on another device, with its data in another place, for another server.
_MAY_DIFFER = re.compile(
    r"trainer\.(device|threads)|data\.(root|workers|cache_limit_gb)|tracking(\..*)?"
)


def resolved_config(cfg: DictConfig) -> Config:
    """Return the config of a run with interpolations resolved and paths absolute.

    Component groups (model, loss, optim, scheduler, data, augment) are plain mappings. Raises
    `ConfigError` for unknown keys, missing values and interpolations that cannot be resolved.
    """
    refuse_unknown_keys(cfg)
    directory = Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()
    keys = [str(key) for key in cfg if key != "hydra"]
    try:
        values: Any = OmegaConf.to_object(OmegaConf.masked_copy(cfg, keys))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {first_line(error)}") from error
    resolve_paths(values, directory)
    return Config(**values)


def stored_config(cfg: DictConfig, config: Config) -> dict[str, Any]:
    """Return `config`, resolved from `cfg`, as stored: plain, without `resume` and secrets."""
    resolved = asdict(config)
    del resolved["resume"]
    values: dict[str, Any] = without_secrets(cfg, resolved)
    # Both are names of directories, and those of this run even if the variable changes.
    return values | {"name": config.name, "study": config.study}


def refuse_difference(cfg: DictConfig, config: Config, run_dir: Path) -> None:
    """Raise `ConfigError` unless the run in `run_dir` was started with this config, key by key."""
    stored = read_config(run_dir)
    # Earlier versions stored what an environment variable held.
    resolved = difference(stored, asdict(config))
    lines = [
        f"  {key}: {before!r} -> {now!r}"
        for key, (before, now) in difference(stored, stored_config(cfg, config)).items()
        if key in resolved and not _MAY_DIFFER.fullmatch(key)
    ]
    if lines:
        raise ConfigError(
            f"resume: {shown(run_dir)} was started with another config (run -> now); "
            "nothing was written:\n"
            + "\n".join(lines)
            + "\n  Undo the change, or start a new run with it."
        )
