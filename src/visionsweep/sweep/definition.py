"""A sweep as a command defines it, and what follows from that."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from visionsweep.program import program
from visionsweep.rundir.layout import STUDY
from visionsweep.sweep.command_line import command_of, single_run_overrides
from visionsweep.sweep.composition import Composer
from visionsweep.sweep.confirm import Candidates
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.space.space import SearchSpace
from visionsweep.sweep.stored import Stored, override_key
from visionsweep.text import sqlite_url


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked and composed. Nothing has been written yet."""

    context: HydraContext
    config: DictConfig
    task_function: TaskFunction
    sweep_dir: Path
    settings: SweepSettings
    space: SearchSpace
    composer: Composer
    n_trials: int
    grid: list[dict[str, Any]] | None
    previous: Stored | None  # as on disk; None: a new sweep
    current: Stored  # as it will be written
    resume_overrides: list[str]  # enough to find the sweep
    candidates: Candidates | None = None  # of a confirmation

    @property
    def storage_url(self) -> str:
        """The Optuna URL of the study."""
        return self.settings.storage or study_url(self.sweep_dir)

    @property
    def portfolio(self) -> list[dict[str, Any]]:
        """What is tried first because it did well on other data sets."""
        found: list[dict[str, Any]] = self.current.search.get("portfolio", [])
        return found

    @property
    def study_name(self) -> str:
        """The study's name in its storage; renaming the directory does not change it."""
        return self.settings.study_name or self.current.study_name

    def epochs(self) -> int | None:
        """Return the epochs of a whole run; None if the app has no such key or searches it."""
        key = self.settings.epochs_key
        if key in self.space.searched_keys:
            return None
        value = self.composer.value_of(key)
        return value if isinstance(value, int) else None

    def resume_command(self) -> str:
        """Return the command that resumes this sweep."""
        return command_of(f"{program()} --multirun", self.resume_overrides)

    def repeat_overrides(self, number: int, params: dict[str, Any], threads: int) -> list[str]:
        """Return plain overrides that repeat a trial (its first run) as a single run."""
        settings = self.settings
        overrides = [
            *self.composer.overrides(number, params, index=0),
            *single_run_overrides(self.current.hydra_overrides),
        ]
        left_out = {*settings.multirun_keys, settings.study_key, "hydra.sweep.subdir"}
        plain = [o for o in dict.fromkeys(overrides) if override_key(o) not in left_out]
        key = settings.threads_key
        if key is not None and self.composer.value_of(key) is None:
            plain.append(f"{key}={threads}")
        return plain


def study_url(sweep_dir: Path) -> str:
    """Return the Optuna URL of a sweep's own database."""
    return sqlite_url(sweep_dir / STUDY)
