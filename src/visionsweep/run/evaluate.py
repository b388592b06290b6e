"""The test split of a run that did not evaluate it: the winner of a sweep, on request."""

import logging
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.answer.members import ENSEMBLE
from visionsweep.answer.objectives import metrics_of
from visionsweep.answer.predictions import mean_of
from visionsweep.config.paths import shown
from visionsweep.config.schema import Config, TrackingConfig
from visionsweep.data.split_manifest import read_split, split_rows
from visionsweep.errors import UserError
from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.description import resolved_config
from visionsweep.run.evaluate_ensemble import evaluate_ensemble
from visionsweep.run.finish import evaluate_split, split_predictions
from visionsweep.run.scores import record_scores, show_scores
from visionsweep.rundir.description import read_config, read_environment
from visionsweep.rundir.layout import (
    BEST,
    BEST_TRIAL,
    CONFIG,
    SPLIT,
    holds_sweep,
    runs_of_trial,
    sweep_directory,
    trial_of_link,
)
from visionsweep.rundir.lock import locked
from visionsweep.rundir.predictions import read_predictions
from visionsweep.rundir.result import read_result
from visionsweep.text import first_line
from visionsweep.training import checkpoint

log = logging.getLogger(__name__)


def evaluate_trial(directory: Path) -> dict[Path, TrackingConfig]:
    """Evaluate a run, an ensemble, or all runs of a trial with several seeds or folds.

    Returns what is new for MLflow: directories (of the sweep, if there is one), and where they are
    tracked. Raises `UserError` for a run that is not finished, has no test split, or other data.
    """
    directory = trial_of_link(directory)
    if holds_sweep(directory):
        raise UserError(
            f"run: {shown(directory)} is a sweep; expected one of its runs, e.g. "
            f"run={shown(directory / BEST_TRIAL)}"
        )
    if (directory / CONFIG).is_file() and ENSEMBLE in read_config(directory):
        return evaluate_ensemble(directory)
    changed = {}
    run_dirs = runs_of_trial(directory)
    for run_dir in run_dirs:
        config = _evaluate_run(run_dir)
        if config is not None and config.tracking.enabled:
            sweep_dir = sweep_directory(run_dir)
            changed[sweep_dir if holds_sweep(sweep_dir) else run_dir] = config.tracking
    if len(run_dirs) > 1:
        _show_mean(directory, run_dirs)
    return changed


def evaluate_test(cfg: DictConfig) -> float | None:
    """Evaluate the run of a job that has finished; for `hydra.sweeper.evaluate`.

    Returns the objective's metric on the test split; None if there is none. Raises `UserError` as
    `evaluate_trial` does.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    metric = str(cfg.objective.metric).replace("val/", "test/", 1)
    _evaluate_run(run_dir, needs_test=False)
    result = read_result(run_dir)
    assert result is not None  # it was just read
    return None if result["test"] is None else float(result["test"][metric])


def _show_mean(directory: Path, run_dirs: list[Path]) -> None:
    """Log the scores of the mean of all runs' probabilities for the test images."""
    runs = [read_predictions(run_dir) for run_dir in run_dirs]
    test = mean_of([run.test for run in runs if run.test is not None])
    if test is None:
        log.warning(
            "%s: the data changed between the evaluations of its runs, which have different test "
            "images, so their mean prediction has no score",
            shown(directory),
        )
        return
    absent_classes = read_config(run_dirs[0])["metrics"]["absent_classes"]
    metrics = metrics_of(test, runs[0].class_names, absent_classes, "test")
    show_scores(directory, metrics, f"mean prediction of {len(run_dirs)} runs")


def _evaluate_run(run_dir: Path, *, needs_test: bool = True) -> Config | None:
    """Evaluate one run and return its config; None if it has its scores already.

    Without a test split: raises `UserError`, or returns None unless it ``needs_test``.
    """
    if not (run_dir / CONFIG).is_file():
        problem = f"holds no run (no {CONFIG})" if run_dir.is_dir() else "does not exist"
        raise UserError(f"run: {shown(run_dir)} {problem}; expected e.g. run=outputs/NAME")
    with locked(run_dir):
        result = read_result(run_dir)
        if result is None or result["state"] != "finished":
            state = "has not ended" if result is None else result["state"]
            raise UserError(f"run: {shown(run_dir)}: expected a finished run, this one: {state}")
        if result["test"] is not None:
            show_scores(run_dir, result["test"], "evaluated already")
            return None
        if not (run_dir / BEST).is_file():
            raise UserError(
                f"run: {shown(run_dir)} has no {BEST}; a sweep keeps the weights of its best "
                f"trials only, and run={BEST_TRIAL} in its directory is the best"
            )
        config = config_of_run(run_dir)
        parts = parts_of_run(run_dir, config)
        batches = parts.test
        tested = None if batches is None else evaluate_split(parts, batches, "test")
        if tested is None and not needs_test:
            return None
        if tested is None:
            raise UserError(
                f"run: {shown(run_dir)}: {parts.dataset.name} has no test split; predict other "
                "images with: visionsweep predict"
            )
        metrics = tested.metrics(parts.settings, "test")
        assert parts.dataset.test is not None
        rows = np.arange(len(parts.dataset.test))
        test = split_predictions(tested, parts.dataset.test, rows)
        record_scores(run_dir, test, {**result, "test": metrics}, result["epochs"])
    show_scores(run_dir, metrics, f"best epoch {result['best_epoch']}")
    return config


def config_of_run(run_dir: Path) -> Config:
    """Return the typed config of a run. Raises `UserError` if it is none."""
    stored = read_config(run_dir)
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), stored, {"resume": None})
    except OmegaConfBaseException as error:
        raise UserError(
            f"{shown(run_dir / CONFIG)}: is not the config of a run ({first_line(error)})"
        ) from error
    assert isinstance(config, DictConfig)
    return resolved_config(config)


def parts_of_run(run_dir: Path, config: Config) -> RunParts:
    """Return the parts of the run, with its best weights."""
    parts = assemble(config, stored_threads=read_environment(run_dir).get("threads"))
    split = split_rows(parts.dataset, parts.train_indices, parts.val_indices)
    if read_split(run_dir / SPLIT) != split:
        raise UserError(
            f"{shown(run_dir / SPLIT)}: the data has changed since the run started, or its split "
            "was made by another version; restore the files, or start a new run"
        )
    weights = checkpoint.load(run_dir / BEST)["model"]
    parts.begin_phase(len(parts.phases) - 1)  # of a head on features its backbone is the first one
    parts.state.load_inference_weights(weights)
    return parts
