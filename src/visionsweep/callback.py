"""What must happen before Hydra writes anything, and after the last job: a Hydra callback.

A used directory, a wrong name, a config that differs from the run to resume are refused here. Hydra only warns
about exceptions of a callback, so a refusal prints its line and exits.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from visionsweep.errors import ConfigError, UserError

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What Hydra and the uploader leave where a run failed before it started: nothing to lose or to go on with.
_LEFT_BY_A_FAILED_START = {
    *(".hydra", "train.log", "uploader.log", ".lock"),
    *("result.json", "split.csv", "config.yaml", "environment.json"),
}


def fail(message: str) -> NoReturn:
    """End the command with one line and exit code 1."""
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the terminal is where this belongs
    raise SystemExit(1)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        fail(str(error))


class RunCallback(Callback):
    """Guards the directory of a run or sweep, and runs the uploader beside it."""

    def __init__(self) -> None:
        self._uploader: Any = None
        self._is_multirun_under_way = False

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the run's directory; start the uploader."""
        run_dir = Path(config.hydra.run.dir).absolute()
        with _refusing():
            check_name("name", config.name)
            if config.resume is None:
                _refuse_used(
                    run_dir,
                    f"a run already; go on with `python train.py resume={config.hydra.run.dir}`, "
                    "or choose another name",
                )
            else:
                from visionsweep.description import refuse_difference, resolved_config

                refuse_difference(resolved_config(config), run_dir)
            self._start(config, run_dir)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Wait for the uploader."""
        self._finish(config, Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the sweep's directory and direction; start the uploader."""
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
        with _refusing():
            check_name("study", config.study)
            _refuse_other_direction(config)
            _refuse_used(sweep_dir, "a sweep already; choose another name (study=...)")
            sweep_dir.mkdir(parents=True, exist_ok=True)  # the study's SQLite file goes there; SQLite makes no folder
            self._start(config, sweep_dir)
        self._is_multirun_under_way = True

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the best run's model exported; wait for the uploader."""
        if not self._is_multirun_under_way:  # refused: Hydra calls this all the same
            return
        sweep_dir = Path(config.hydra.sweep.dir)
        best = best_run(sweep_dir, config.objective.direction)
        if best is not None:
            from visionsweep.recording import BEST
            from visionsweep.results import read_result
            from visionsweep.tracking.journal import Journal

            result = read_result(best)
            assert result is not None  # best_run read it
            journal = Journal(best)
            journal.model(BEST, step=result["best_epoch"])
            journal.close()
            log.info("best run: %s (%s %.4f)", best, result["objective"]["metric"], result["objective"]["value"])
        self._finish(config, sweep_dir)

    def _start(self, config: DictConfig, directory: Path) -> None:
        if not config.tracking.enabled:
            return
        from visionsweep.tracking.process import resolve_uri, start_uploader

        uri = resolve_uri(config.tracking.uri, Path.cwd())
        self._uploader = start_uploader(directory, uri, config.tracking.experiment, config.tracking.wait_seconds)

    def _finish(self, config: DictConfig, directory: Path) -> None:
        if self._uploader is None:
            return
        from visionsweep.tracking.ack import without_password
        from visionsweep.tracking.process import resolve_uri, ui_command

        uploader, self._uploader = self._uploader, None
        if not any(directory.glob("events.jsonl")) and not any(directory.glob("*/events.jsonl")):
            uploader.finish(0, lambda _: None)  # nothing was started, so there is nothing to send or to compare
            return
        log.info("the record is safe in %s; sending the rest of it to MLflow", directory)
        behind = uploader.finish(config.tracking.wait_seconds, _show_behind)
        uri = resolve_uri(config.tracking.uri, Path.cwd())
        shown_uri = without_password(uri)
        if behind:
            log.warning(
                "MLflow: %d records did not arrive at %s; they are safe in %s. Send them: python sync.py %s --uri %s",
                behind,
                shown_uri,
                directory,
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


def _refuse_used(directory: Path, what: str) -> None:
    if not directory.exists():
        return
    if any(entry.name not in _LEFT_BY_A_FAILED_START for entry in directory.iterdir()):
        raise UserError(f"{directory} is never overwritten: it holds {what}")


def _refuse_other_direction(config: DictConfig) -> None:
    direction = OmegaConf.select(config, "hydra.sweeper.direction")
    if direction is None:  # a plain grid has none
        return
    name = getattr(direction, "name", direction)
    if name != config.objective.direction:
        raise ConfigError(
            f"hydra.sweeper.direction: the objective is to {config.objective.direction}, got {name}; "
            "set hydra.sweeper.direction=${objective.direction}"
        )


def best_run(sweep_dir: Path, direction: str) -> Path | None:
    """Return the directory of the finished run with the best objective, or None. Ties keep the earlier run."""
    from visionsweep.results import read_result

    sign = 1.0 if direction == "maximize" else -1.0
    found: list[tuple[float, int, Path]] = []
    for path in sweep_dir.iterdir():
        result = read_result(path) if path.name.isdigit() else None
        if result is not None and result["state"] == "finished":
            found.append((-sign * result["objective"]["value"], int(path.name), path))
    return min(found)[2] if found else None
