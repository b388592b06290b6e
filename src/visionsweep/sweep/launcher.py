"""The engine of a sweep: the workers of the launcher that `hydra/launcher` names."""

from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins

from visionsweep.errors import ConfigError
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.engines.engine import Engine


def create_engine(sweep: Sweep, log_path: Path) -> Engine:
    """Start the engine. Raises `ConfigError` for a launcher that cannot run single trials."""
    job: dict[str, Any] = {
        "hydra_context": sweep.context,
        "task_function": sweep.task_function,
        "config": sweep.config,
    }
    launcher: Any = Plugins.instance().instantiate_launcher(**job)
    name = type(launcher).__name__
    if name == "BasicLauncher":  # Hydra's default: the user chose none
        from hydra_plugins.visionsweep_sweep.launcher import WorkersLauncher

        launcher = WorkersLauncher()
        launcher.setup(**job)
    elif not hasattr(launcher, "create_engine"):
        raise ConfigError(
            f"hydra/launcher: {name} takes a batch of jobs and returns when all are done, so it "
            "can neither start the next trial at once nor stop one. Set hydra/launcher=workers, "
            "or use hydra/sweeper=optuna with it"
        )
    engine: Engine = launcher.create_engine(n_jobs=sweep.settings.n_jobs, log_path=log_path)
    return engine
