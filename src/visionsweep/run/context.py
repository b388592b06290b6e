"""The context of a run: what is known of it before its parts are built."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from visionsweep.config.paths import from_directory, shown
from visionsweep.config.schema import Config
from visionsweep.errors import ConfigError, UserError
from visionsweep.run.description import refuse_difference, resolved_config, stored_config
from visionsweep.rundir.description import holds_run, read_config, read_environment
from visionsweep.rundir.layout import CONFIG, ENVIRONMENT, fold_name, sweep_directory
from visionsweep.rundir.lock import locked
from visionsweep.sweep.trial import Trial, current_trial

COMPONENT_GROUPS = ("model", "loss", "optim", "scheduler", "data", "augment")
FOLD = "split.fold"
TRIAL_LOCK_SECONDS = 30.0  # the worker of a controller that died may still be running


@dataclass(frozen=True)
class RunContext:
    """One run: where it writes, its config, and how it was started."""

    run_dir: Path
    config: Config
    stored: dict[str, Any]  # the config as files hold it, without secrets
    trial: Trial
    first_start: Mapping[str, Any] | None  # environment.json of a run that is resumed
    choices: Mapping[str, str]  # the chosen option of each component group
    overrides: list[str]  # as typed; with them Hydra composes the config again
    searched: Mapping[str, str]  # what the sweep searched, as typed; in a single run, all overrides
    folds_dir: Path | None = None  # with split.fold=all: the directory that holds all folds

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier process started this run."""
        return self.first_start is not None

    @property
    def is_trial(self) -> bool:
        """Whether this process works for a sweep."""
        return self.trial.number is not None

    @property
    def is_in_sweep(self) -> bool:
        """Whether the run is one of several to choose from, started by whatever sweeper."""
        is_multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
        return self.is_trial or is_multirun or self.place is not None

    @property
    def place(self) -> str | None:
        """NUMBER or NUMBER/seed_K if the directory belongs to a sweep, else None."""
        sweep_dir = sweep_directory(self.run_dir)
        place = self.run_dir.relative_to(sweep_dir)
        is_in_sweep = sweep_dir.name == self.config.study and place.parts[0].isdigit()
        return place.as_posix() if is_in_sweep else None


@contextlib.contextmanager
def open_run(cfg: DictConfig, folds_dir: Path | None = None) -> Iterator[RunContext]:
    """Lock the directory of a run and yield its context.

    The directory is Hydra's, or without a Hydra job the one to resume or a new `outputs/NAME`. A
    trial that an earlier process started is resumed, and so is a run if `resume` says so. Raises
    `ConfigError` if that run had another config, `UserError` if the directory is used or locked.

    ``folds_dir``: the run is a fold (`split.fold`) of the run there, and has a folder in it.
    """
    config = resolved_config(cfg)
    trial = current_trial()
    is_trial = trial.number is not None
    if folds_dir is None:
        run_dir = _run_directory(config)
    else:
        run_dir = folds_dir / fold_name(int(config.split.fold or 0))
        run_dir.mkdir(exist_ok=True)
    with locked(run_dir, TRIAL_LOCK_SECONDS if is_trial else 0.0):
        can_resume = is_trial or config.resume is not None or folds_dir is not None
        first_start = _first_start(cfg, config, run_dir, is_trial=is_trial) if can_resume else None
        choices: dict[str, str] = {}
        overrides: list[str] = []
        if HydraConfig.initialized():
            hydra = HydraConfig.get()
            chosen = hydra.runtime.choices
            choices = {group: str(chosen[group]) for group in COMPONENT_GROUPS if group in chosen}
            # As typed: an interpolation may hold a password.
            typed: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
            overrides = [*typed["task"], *filter(_is_search_path, typed["hydra"])]
        if folds_dir is not None:  # so that they compose this fold again
            overrides = [o for o in overrides if o.partition("=")[0].lstrip("+") != FOLD]
            overrides.append(f"{FOLD}={config.split.fold}")
        keys = trial.params or (first_start or {}).get("searched") or _typed(overrides)
        yield RunContext(
            run_dir=run_dir,
            config=config,
            stored=stored_config(cfg, config),
            trial=trial,
            first_start=first_start,
            choices=choices,
            overrides=overrides,
            searched=typed_values(keys, overrides),
            folds_dir=folds_dir,
        )


def typed_values(keys: Iterable[str], overrides: Iterable[str]) -> dict[str, str]:
    """Return the values of `keys` as typed in `overrides`, in the order of the keys."""
    typed = _typed(overrides)
    return {key: typed[key].strip("'\"") for key in keys if key in typed}


def _typed(overrides: Iterable[str]) -> dict[str, str]:
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+"): value for key, _, value in pairs}


def _is_search_path(override: str) -> bool:
    return override.lstrip("+").startswith("hydra.searchpath")


def _run_directory(config: Config) -> Path:
    resumed = None if config.resume is None else Path(from_directory(config.resume, Path.cwd()))
    if HydraConfig.initialized():
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        if resumed not in (None, run_dir):
            raise ConfigError(
                f"resume: expected resume={config.resume} on the command line, got it from a config"
            )
        return run_dir
    if resumed is not None:
        if not holds_run(resumed):
            raise ConfigError(f"resume: {resumed} holds no run (no {CONFIG} and {ENVIRONMENT})")
        return resumed
    run_dir = Path(from_directory(f"outputs/{config.name}", Path.cwd()))
    if run_dir.exists():
        raise UserError(f"{shown(run_dir)} exists already; give the run another name")
    run_dir.mkdir(parents=True)
    return run_dir


def _first_start(
    cfg: DictConfig, config: Config, run_dir: Path, *, is_trial: bool
) -> dict[str, Any] | None:
    """Return what the first process wrote; None if it died before the run began.

    Takes the run's name from there: without name=NAME it is the time of the first start. Only a
    trial has a new study: its sweep may have been renamed.
    """
    if not holds_run(run_dir):
        return None
    previous = read_config(run_dir)
    config.name, study = previous.get("name", config.name), config.study
    config.study = previous.get("study", study)
    refuse_difference(cfg, config, run_dir)
    if is_trial:
        config.study = study
    return read_environment(run_dir)
