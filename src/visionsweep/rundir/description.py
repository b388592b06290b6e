"""`config.yaml` and `environment.json`: what a run was started with. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from visionsweep.errors import DataError
from visionsweep.rundir.layout import CONFIG, ENVIRONMENT
from visionsweep.text import first_line


def holds_run(run_dir: Path) -> bool:
    """Return whether a run began in `run_dir`."""
    return (run_dir / CONFIG).is_file() and (run_dir / ENVIRONMENT).is_file()


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the config of a run as stored. Raises `DataError` if it is missing or damaged."""
    path = run_dir / CONFIG
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(config, dict) or not config:
            raise ValueError("not the config of a run")
    except (OSError, ValueError, YAMLError) as error:
        raise _damaged(path, error) from error
    return config


def read_environment(run_dir: Path) -> dict[str, Any]:
    """Return what the first process wrote. Raises `DataError` if it is missing or damaged."""
    path = run_dir / ENVIRONMENT
    try:
        environment: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(environment, dict) or not isinstance(environment.get("overrides"), list):
            raise ValueError("no overrides in it")
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return environment


def _damaged(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
    return DataError(f"cannot read {path} ({reason}); restore it, or start a new run")
