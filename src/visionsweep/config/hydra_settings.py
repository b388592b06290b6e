"""Settings of Hydra that a config may not have, since a config may come from a stranger."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.hydra_errors import one_line
from visionsweep.errors import ConfigError

_CALLBACK = "visionsweep.callback.RunCallback"


def check_hydra_settings(hydra: Any) -> None:
    """Raise `ConfigError` for settings of `hydra` that would reach beyond the run.

    Variables of the environment decide what programs do, such as git; the callback guards the
    directory of a run.
    """
    for key in ("env_copy", "env_set"):  # Hydra copies the former into the latter
        names = list(hydra.job[key] or ())
        if names:
            raise ConfigError(
                f"hydra.job.{key}: a config may not set variables of the environment, "
                f"got {', '.join(map(str, names))}; set them in your shell"
            )
    folder = hydra.output_subdir
    if folder is not None and (Path(folder).name != folder or folder == ".."):
        raise ConfigError(
            f"hydra.output_subdir: expected the name of a folder in the run's directory, "
            f"got '{folder}'"
        )
    callbacks = (hydra.callbacks or {}).values()
    if not any(node and node.get("_target_") == _CALLBACK for node in callbacks):
        raise ConfigError(
            f"hydra.callbacks: {_CALLBACK} is missing, which guards the run's directory; remove "
            "what replaces it"
        )


def check_interpolations(config: Any) -> None:
    """Raise `ConfigError` for an interpolation of the sweeper or launcher that leads nowhere."""
    for node in ("hydra.sweeper", "hydra.launcher"):
        try:
            OmegaConf.to_container(OmegaConf.select(config, node), resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(one_line(error)) from error


def check_logging(config: dict[str, Any]) -> None:
    """Raise `ConfigError` if a logging config, resolved, names a file that is not the run's log."""
    for name, handler in (config.get("handlers") or {}).items():
        if isinstance(handler, dict) and "filename" in handler:
            _check_log_file(handler["filename"], f"hydra logging, handler {name}")


def _check_log_file(filename: Any, where: str) -> None:
    hydra: Any = HydraConfig.instance().cfg
    run_dir = None if hydra is None else OmegaConf.select(hydra, "hydra.runtime.output_dir")
    path = Path(str(filename))
    is_inside = run_dir is not None and path.resolve().is_relative_to(Path(run_dir).resolve())
    if not is_inside or path.suffix != ".log":
        raise ConfigError(
            f"{where}: expected a file ${{hydra.runtime.output_dir}}/NAME.log, got '{filename}'"
        )
