"""Hydra's callback: guards the directory of a run or sweep, and runs the uploader beside it.

It refuses a used directory, an illegal name and a config that differs from the run to resume,
before Hydra writes anything. Hydra only warns about exceptions of a callback, so a refusal prints
its line and exits. Imports no torch, since it runs in the controller of a sweep.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.hydra_settings import check_hydra_settings, check_interpolations
from visionsweep.config.schema import (
    ALL_FOLDS,
    TrackingConfig,
    all_folds_in_a_sweep,
    directions,
)
from visionsweep.config.secrets import hide_from_hydra, mask_key
from visionsweep.config.unknown_keys import refuse_unknown_keys
from visionsweep.errors import ConfigError, UserError
from visionsweep.program import command, fail
from visionsweep.rundir.layout import LEFT_BY_A_FAILED_START, SWEEP
from visionsweep.rundir.lock import locked
from visionsweep.rundir.usable import usable
from visionsweep.sweep.stored import continued, override_key, read_stored, typed_overrides
from visionsweep.tracking.lifecycle import (
    Upload,
    check_tracking,
    request_best_model,
    send_confirmed_study,
    store_to_resume,
)

log = logging.getLogger(__name__)

# The only sweeper that resumes in a used directory, under a lock; the others overwrite it.
_RESUMING_SWEEPER = "hydra_plugins.visionsweep_sweep.sweeper.OptunaAsyncSweeper"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        fail(str(error))


class RunCallback(Callback):
    """Guards the directory of a run or sweep, and runs the uploader beside it."""

    def __init__(self) -> None:
        self._upload: Upload | None = None
        self._sweep: DictConfig | None = None  # the config of the running sweep

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker gets: the uploader belongs to the controller."""
        return {"_upload": None, "_sweep": None}

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the run's directory; start the uploader."""
        run_dir = Path(config.hydra.run.dir).absolute()
        with _refusing():
            check_hydra_settings(config.hydra)
            refuse_unknown_keys(config)
            check_name("name", config.name)
            if config.resume is None:
                with usable(run_dir, "hydra.run.dir"):
                    _refuse_used(
                        run_dir,
                        f"a run already; resume it with `{command('train')} "
                        f"resume={config.hydra.run.dir}`, or choose another name",
                    )
            else:
                from visionsweep.run.description import refuse_difference, resolved_config

                refuse_difference(config, resolved_config(config), run_dir)
            with usable(run_dir, "hydra.run.dir"):
                run_dir.mkdir(parents=True, exist_ok=True)
            self._start(config, run_dir, config.hydra.overrides.task)
            mask_key(config, "tracking.uri")  # the uploader has it
            hide_from_hydra(config, run_dir)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Wait for the uploader."""
        self._finish()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the sweep's directory and direction; start the uploader.

        A dry run starts nothing and writes nothing.
        """
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
        given = config.hydra.overrides.task
        with _refusing():
            check_hydra_settings(config.hydra)
            check_interpolations(config)
            refuse_unknown_keys(config)
            check_name("study", config.study)
            _refuse_other_direction(config)
            if OmegaConf.select(config, "split.fold") == ALL_FOLDS:
                raise all_folds_in_a_sweep()  # here, before workers start
            with usable(sweep_dir, "hydra.sweep.dir"):
                config = _checked(config, sweep_dir)
                if OmegaConf.select(config, "hydra.sweeper.dry_run"):
                    return
                # SQLite needs the folder of the study's file.
                sweep_dir.mkdir(parents=True, exist_ok=True)
                with locked(sweep_dir):  # else another controller runs, with its uploader
                    pass
            self._start(config, sweep_dir, given)
        self._sweep = config

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Ask for a model of the best run if the sweep is complete; wait for the uploader."""
        if self._sweep is None:  # refused: Hydra calls this all the same
            return
        sweep_dir = Path(config.hydra.sweep.dir)
        # If our sweeper exits or raises, the sweep was refused, interrupted or stopped: its best
        # may still change.
        error = sys.exception()
        exit_code = error.code if isinstance(error, SystemExit) else None
        if error is None or not _is_resuming(config):
            request_best_model(sweep_dir, self._sweep.tracking.register)
        self._finish(is_refused=exit_code == 1)
        if error is None and self._sweep.tracking.enabled:
            send_confirmed_study(
                sweep_dir, cast(TrackingConfig, OmegaConf.to_object(self._sweep.tracking))
            )
        self._sweep = None

    def _start(self, config: DictConfig, directory: Path, given: Iterable[str]) -> None:
        """Start the uploader; ``given`` are the overrides of this command, not the stored ones."""
        tracking = cast(TrackingConfig, OmegaConf.to_object(config.tracking))
        check_tracking(tracking)
        if not tracking.enabled:
            return
        if not any(override_key(one) in ("tracking", "tracking.uri") for one in given):
            tracking.uri = store_to_resume(directory, tracking.uri)
        self._upload = Upload(directory, tracking)

    def _finish(self, *, is_refused: bool = False) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.finish(is_refused=is_refused)


def check_name(key: str, value: str) -> None:
    """Raise `ConfigError` unless `value` names a directory directly below its parent."""
    if not _NAME.fullmatch(str(value)):
        raise ConfigError(
            f"{key}: expected letters, digits, '.', '_' and '-', starting with a letter or digit, "
            f"got '{value}'"
        )


def _checked(config: DictConfig, sweep_dir: Path) -> DictConfig:
    """Return the config of a new sweep or of the one to resume. Raises `UserError` for a used one.

    A directory without trials is that of a sweep that never began.
    """
    if not _is_resuming(config):
        _refuse_used(sweep_dir, "a sweep already; choose another name (study=...)")
    elif (sweep_dir / SWEEP).exists():
        return _as_stored(config, sweep_dir)
    elif any(sweep_dir.glob("[0-9]*")):
        raise UserError(
            f"{sweep_dir} is never overwritten: it holds the sweep of another sweeper; "
            "choose another study"
        )
    return config


def _refuse_used(directory: Path, what: str) -> None:
    if not directory.exists():
        return
    if any(entry.name not in LEFT_BY_A_FAILED_START for entry in directory.iterdir()):
        raise UserError(f"{directory} is never overwritten: it holds {what}")


def _refuse_other_direction(config: DictConfig) -> None:
    given = OmegaConf.select(config, "hydra.sweeper.direction")
    if given is None:  # a plain grid has none
        return
    # A resolver's list is a plain one.
    given = given if isinstance(given, ListConfig | list) else [given]
    found = [getattr(item, "name", item) for item in given]
    wanted = directions(config.objective.direction, config.objective.others)
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if found != wanted:
        raise ConfigError(
            f"hydra.sweeper.direction: expected {', '.join(wanted)} as in `objective`, "
            f"got {', '.join(map(str, found))}; set hydra.sweeper.direction="
            "${visionsweep.directions:${objective.direction},${objective.others}}"
        )


def _is_resuming(config: DictConfig) -> bool:
    return bool(OmegaConf.select(config, "hydra.sweeper._target_") == _RESUMING_SWEEPER)


def _as_stored(config: DictConfig, sweep_dir: Path) -> DictConfig:
    """Return the config of a resumed sweep: the command's overrides merged onto the stored ones.

    So `study=NAME` is enough, and the record goes where the stored sweep sent it. If the overrides
    do not compose, the sweeper explains why.
    """
    stored = read_stored(sweep_dir)
    assert stored is not None  # the file exists
    hydra, task = continued(stored, *typed_overrides(config))
    loader = GlobalHydra.instance().config_loader()
    try:
        return loader.load_configuration(
            config.hydra.job.config_name, [*hydra, *task], run_mode=RunMode.MULTIRUN
        )
    except (HydraException, OmegaConfBaseException):
        return config
