"""`hydra/sweeper=optuna_async`: the class that Hydra finds; `visionsweep.sweep` does the work."""

import sys
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from . import config as _config  # registers hydra/sweeper=optuna_async  # noqa: F401


class OptunaAsyncSweeper(Sweeper):
    """Runs Optuna's trials in warm workers without a barrier; prunes, and resumes stored sweeps."""

    def __init__(self, **settings: Any) -> None:
        # `sweep` reads hydra.sweeper itself: a stored sweep is composed with its own settings.
        del settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what `sweep` needs."""
        self._hydra_context = hydra_context
        self._task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep to its end; exits with 1 if it failed, 130 if it was interrupted."""
        from visionsweep.errors import UserError
        from visionsweep.masking import mask_logs
        from visionsweep.streams import keep_streams
        from visionsweep.sweep.command import run_sweep
        from visionsweep.text import mask_passwords

        mask_logs()
        keep_streams()
        assert self.config is not None
        try:
            code = run_sweep(self._hydra_context, self.config, self._task_function, arguments)
        except UserError as error:
            print(f"error: {mask_passwords(str(error))}", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None
        except KeyboardInterrupt:  # before the sweep handles Ctrl-C itself
            print("interrupted before the first trial", file=sys.stderr)  # noqa: T201
            raise SystemExit(130) from None
        if code:
            raise SystemExit(code)
        return None
