"""What must happen before Hydra writes anything, and after the last job: a Hydra callback.

A used directory, a wrong name, a config that differs from the run to resume are refused here. Hydra only warns
about exceptions of a callback, so a refusal prints its line and exits. Imports no torch: it runs in the controller of
a sweep.
"""

import contextlib
import logging
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.schema import directions
from visionsweep.errors import ConfigError, UserError
from visionsweep.program import command, fail
from visionsweep.rundir.lock import locked
from visionsweep.sweep.stored import FILE as STORED_SWEEP
from visionsweep.sweep.stored import continue_command, merge, read_stored

log = logging.getLogger(__name__)

# It takes up a used directory, under a lock of its own; every other sweeper would overwrite it.
_RESUMING_SWEEPER = "hydra_plugins.visionsweep_sweep.sweeper.OptunaAsyncSweeper"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What Hydra, the uploader and the controller leave where a run or sweep failed before it started: nothing to lose or
# to go on with.
_LEFT_BY_A_FAILED_START = {
    *(".hydra", "train.log", "uploader.log", "sweep.log", ".lock"),
    *("result.json", "split.csv", "config.yaml", "environment.json"),
}


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        fail(str(error))


def _make_directory(directory: Path, key: str) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{directory}: cannot be made ({reason}); start the command where you may write, or give {key}=DIR"
        ) from error


class RunCallback(Callback):
    """Guards the directory of a run or sweep, and runs the uploader beside it."""

    def __init__(self) -> None:
        self._uploader: Any = None
        self._sweep: DictConfig | None = None  # the config of the sweep under way

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker gets: the uploader is the controller's."""
        return {"_uploader": None, "_sweep": None}

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the run's directory; start the uploader."""
        run_dir = Path(config.hydra.run.dir).absolute()
        with _refusing():
            check_name("name", config.name)
            if config.resume is None:
                _refuse_used(
                    run_dir,
                    f"a run already; resume it with `{command('train')} resume={config.hydra.run.dir}`, "
                    "or choose another name",
                )
            else:
                from visionsweep.run.description import refuse_difference, resolved_config

                refuse_difference(resolved_config(config), run_dir)
            _make_directory(run_dir, "hydra.run.dir")
            self._start(config, run_dir)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Wait for the uploader."""
        self._finish(config, Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the sweep's directory and direction; start the uploader. A dry run starts and writes nothing."""
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
        with _refusing():
            check_name("study", config.study)
            _refuse_other_direction(config)
            if not _is_resuming(config):
                _refuse_used(sweep_dir, "a sweep already; choose another name (study=...)")
            elif (sweep_dir / STORED_SWEEP).exists():
                config = _as_stored(config, sweep_dir)
            elif any(
                sweep_dir.glob("[0-9]*")
            ):  # what else may lie there is of a sweep that never began
                raise UserError(
                    f"{sweep_dir} is never overwritten: it holds another sweeper's; choose another study"
                )
            if OmegaConf.select(config, "hydra.sweeper.dry_run"):
                return
            _make_directory(
                sweep_dir, "hydra.sweep.dir"
            )  # the study's SQLite file goes there; SQLite makes no folder
            with locked(sweep_dir):  # another controller's sweep has its uploader
                pass
            self._start(config, sweep_dir)
        self._sweep = config

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the best run's model exported, if the sweep came to its end; wait for the uploader."""
        if self._sweep is None:  # refused: Hydra calls this all the same
            return
        sweep_dir = Path(config.hydra.sweep.dir)
        # Where the sweeper exits or raises, a sweep that can go on was refused, interrupted or given up.
        error = sys.exception()
        is_over = error is None or not _is_resuming(config)
        best = best_run(sweep_dir) if is_over else None
        if best is not None:
            _export(best, self._sweep.tracking.register)
        has_said_more = best is not None or self._uploader is not None
        self._finish(
            self._sweep, sweep_dir, is_refused=isinstance(error, SystemExit) and error.code == 1
        )
        is_interrupted = isinstance(error, SystemExit) and error.code == 130
        # The sweeper's last line is to be the last one.
        if has_said_more and _is_resuming(config) and (error is None or is_interrupted):
            overrides = [str(override) for override in self._sweep.hydra.overrides.hydra]
            log.info("go on with: %s", continue_command(sweep_dir, overrides, "study"))
        self._sweep = None

    def _start(self, config: DictConfig, directory: Path) -> None:
        _check_tracking(config.tracking)
        if not config.tracking.enabled:
            return
        from visionsweep.tracking.ack import without_password
        from visionsweep.tracking.process import resolve_uri, start_uploader

        uri = resolve_uri(config.tracking.uri, Path.cwd())

        def on_answer(error: str | None, behind: int) -> None:
            if error is None:
                log.info("MLflow answers again")
            else:
                log.warning(
                    "MLflow at %s does not answer (%s); training goes on, %d records behind are safe in %s",
                    *(without_password(uri), error, behind, directory),
                )

        experiment, wait_seconds = config.tracking.experiment, config.tracking.wait_seconds
        self._uploader = start_uploader(directory, uri, experiment, wait_seconds, on_answer)

    def _finish(self, config: DictConfig, directory: Path, *, is_refused: bool = False) -> None:
        """Wait for the uploader. ``is_refused``: if nothing is to be sent, the error stays the last line."""
        if self._uploader is None:
            return
        from visionsweep.tracking.ack import num_behind, run_directories, without_password
        from visionsweep.tracking.process import resolve_uri, ui_command

        uploader, self._uploader = self._uploader, None
        uri = resolve_uri(config.tracking.uri, Path.cwd())
        runs = run_directories(directory)
        has_news = any(num_behind(run_dir, uri) for run_dir in runs)
        if not runs or (is_refused and not has_news):
            uploader.finish(
                0, lambda _: None
            )  # nothing was started, so there is nothing to send or to compare
            return
        if has_news:
            log.info("the record is safe in %s; sending the rest of it to MLflow", directory)
        behind = uploader.finish(config.tracking.wait_seconds, _show_behind)
        shown_uri = without_password(uri)
        if behind:
            log.warning(
                "MLflow: %d records did not arrive at %s; they are safe in %s. Send them: %s %s --uri %s",
                behind,
                shown_uri,
                directory,
                command("sync"),
                directory,
                shown_uri,
            )
        log.info("compare runs: %s", ui_command(uri))


def _show_behind(count: int) -> None:
    log.info("MLflow: %d records behind", count)


def check_name(key: str, value: str) -> None:
    """Raise `ConfigError` unless `value` can name a directory, and only one directly below its parent."""
    if not _NAME.fullmatch(str(value)):
        raise ConfigError(
            f"{key}: expected letters, digits, '.', '_' and '-', starting with a letter or digit, got '{value}'"
        )


def _check_tracking(tracking: DictConfig) -> None:
    """Raise `ConfigError` for settings of `tracking` that cannot be honoured."""
    name = tracking.register
    if name is not None and not tracking.enabled:
        raise ConfigError("tracking.register: needs MLflow; take it out, or choose tracking=mlflow")
    if name is not None and not re.fullmatch(r"[^/:'\"]+", str(name)):
        raise ConfigError(
            f"tracking.register: a model's name has no '/', ':' or quotes, got {name!r}"
        )
    if tracking.system_metrics is not None and tracking.system_metrics < 0.1:
        raise ConfigError(
            f"tracking.system_metrics: expected seconds from 0.1 up, or null (off), got {tracking.system_metrics}"
        )
    if tracking.wait_seconds < 0:
        raise ConfigError(
            f"tracking.wait_seconds: expected seconds from 0 up, got {tracking.wait_seconds}"
        )


def _refuse_used(directory: Path, what: str) -> None:
    if not directory.exists():
        return
    if any(entry.name not in _LEFT_BY_A_FAILED_START for entry in directory.iterdir()):
        raise UserError(f"{directory} is never overwritten: it holds {what}")


def _refuse_other_direction(config: DictConfig) -> None:
    given = OmegaConf.select(config, "hydra.sweeper.direction")
    if given is None:  # a plain grid has none
        return
    given = (
        given if isinstance(given, ListConfig | list) else [given]
    )  # a resolver's list is a plain one
    found = [getattr(item, "name", item) for item in given]
    wanted = directions(config.objective.direction, config.objective.others)
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if found != wanted:
        raise ConfigError(
            f"hydra.sweeper.direction: the objective is to {', '.join(wanted)}, got {', '.join(map(str, found))}; "
            "set hydra.sweeper.direction=${visionsweep.directions:${objective.direction},${objective.others}}"
        )


def _is_resuming(config: DictConfig) -> bool:
    return bool(OmegaConf.select(config, "hydra.sweeper._target_") == _RESUMING_SWEEPER)


def _as_stored(config: DictConfig, sweep_dir: Path) -> DictConfig:
    """Return the config of the sweep that is taken up: the command's overrides merged onto the stored ones.

    `study=NAME` is all that one types, and the tracking of the stored sweep is meant. What the sweeper will refuse
    to compose is left to it to explain.
    """
    stored = read_stored(sweep_dir)
    assert stored is not None  # the file exists
    overrides = merge(
        [*stored.hydra_overrides, *stored.task_overrides],
        [
            str(override)
            for override in (*config.hydra.overrides.hydra, *config.hydra.overrides.task)
        ],
    )
    loader = GlobalHydra.instance().config_loader()
    try:
        return loader.load_configuration(
            config.hydra.job.config_name, overrides, run_mode=RunMode.MULTIRUN
        )
    except (HydraException, OmegaConfBaseException):
        return config


def best_run(sweep_dir: Path) -> Path | None:
    """Return the directory of the best run of a sweep; None where no trial finished.

    That is where the link `best` leads, else the trial with the best objective: the mean over its seeds, whose first
    is returned. Ties keep the earlier trial.
    """
    link = sweep_dir / "best"
    if link.is_symlink():
        return _runs_of(sweep_dir / link.readlink())[0]
    found: list[tuple[float, int, Path]] = []
    for path in sweep_dir.iterdir():
        runs = _runs_of(path) if path.name.isdigit() else []
        values = [_signed_value(run) for run in runs]
        if values and None not in values:
            mean = math.fsum(value for value in values if value is not None) / len(values)
            found.append((-mean, int(path.name), runs[0]))
    return min(found)[2] if found else None


def _runs_of(trial_dir: Path) -> list[Path]:
    """Return the runs of a trial: its directory, or with several seeds those in it, in order."""
    seeds = sorted(trial_dir.glob("seed_*"), key=lambda path: (len(path.name), path.name))
    return seeds or [trial_dir]


def _signed_value(run_dir: Path) -> float | None:
    """Return the objective of a finished run, larger is better; None for any other."""
    from visionsweep.rundir.result import read_result

    result = read_result(run_dir)
    if result is None or result["state"] != "finished":
        return None
    value = float(result["objective"]["value"])
    return value if result["objective"]["direction"] == "maximize" else -value


def _export(best: Path, register: str | None) -> None:
    """Ask for an MLflow model of the best run of a sweep, once, and show its directory."""
    from visionsweep.rundir.journal import Journal, read_journal
    from visionsweep.rundir.result import BEST, read_result

    result = read_result(best)
    if result is None or result["state"] != "finished":
        return
    log.info(
        "best run: %s (%s %.4f)", best, result["objective"]["metric"], result["objective"]["value"]
    )
    if (
        any(record["type"] == "model" for record in read_journal(best))
        or not (best / BEST).is_file()
    ):
        return  # a sweep that went on, and found none better
    journal = Journal(best)
    journal.model(BEST, step=result["best_epoch"], register=register)
    journal.close()
