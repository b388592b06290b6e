"""All folds of one split: `split.fold=all` trains one run per fold, one after another.

Each fold is a run in a folder of its own. The directory above holds what follows from all of them:
the predictions for every image by the network that did not train on it, and their metrics.
"""

import copy
import logging
import math
import shutil
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from visionsweep.answer.objectives import metrics_of, pooled_objectives
from visionsweep.answer.predictions import mean_of, pooled
from visionsweep.config.paths import shown
from visionsweep.config.schema import ALL_FOLDS, Config, all_folds_in_a_sweep
from visionsweep.data.splits import check_folds
from visionsweep.errors import ConfigError
from visionsweep.run.assemble import load_dataset
from visionsweep.run.context import FOLD, RunContext, open_run
from visionsweep.run.start import write_environment
from visionsweep.run.stopped import Stopped
from visionsweep.rundir.description import holds_run
from visionsweep.rundir.journal import Journal, recorded_steps
from visionsweep.rundir.layout import LEFT_BY_A_FAILED_START, fold_name
from visionsweep.rundir.predictions import (
    NUM_MISTAKES,
    Predictions,
    SplitPredictions,
    read_predictions,
    write_predictions,
)
from visionsweep.rundir.result import Objective, objective_of, read_result, write_result
from visionsweep.sweep.trial import current_trial
from visionsweep.text import counted, objective_text

log = logging.getLogger(__name__)

# Trains one fold, whose config it gets, in a folder of the given directory.
TrainFold = Callable[[DictConfig, Path], Objective]


def is_all_folds(cfg: DictConfig) -> bool:
    """Return whether a run is to train all folds. Raises `ConfigError` if it belongs to a sweep."""
    if OmegaConf.select(cfg, FOLD) != ALL_FOLDS:
        return False
    is_multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if is_multirun or current_trial().number is not None:
        raise all_folds_in_a_sweep()
    return True


def check_folds_of_sweep(config: Config) -> None:
    """Raise `ConfigError` if a sweep wants other folds than the data brings.

    Before the data is split: each fold alone may exist, or none.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    folds = OmegaConf.select(HydraConfig.get(), "sweeper.folds")  # type: ignore[arg-type]
    if isinstance(folds, int) and folds > 1:
        _check_folds(config, folds, "hydra.sweeper.folds")


def run_folds(cfg: DictConfig, train_fold: TrainFold) -> Objective:
    """Train every fold that has not finished; write the result of all; return the objective.

    Folds of an earlier process that finished are kept, and one that did not is resumed.
    """
    with open_run(cfg) as context:
        config, run_dir = context.config, context.run_dir
        num_folds = config.split.num_folds
        objectives: list[Objective] = []
        try:
            _check(config)
            write_environment(context, [])
            for fold in range(num_folds):
                place = shown(run_dir / fold_name(fold))
                log.info("fold %d of %d: %s", fold + 1, num_folds, place)
                objectives.append(train_fold(_of_fold(cfg, fold), run_dir))
            return _finish(context, objectives)
        except Stopped as stopped:
            write_result(run_dir, _result(context, "stopped"))
            raise Stopped(run_dir, stopped.signal_number) from None
        except KeyboardInterrupt:
            write_result(run_dir, _result(context, "stopped"))
            raise Stopped(run_dir, signal.SIGINT) from None
        except Exception as error:
            _remove_failed_start(run_dir / fold_name(len(objectives)))
            write_result(run_dir, _result(context, "failed") | {"error": str(error)})
            raise


def _check(config: Config) -> None:
    num_folds = config.split.num_folds
    if num_folds < 2:
        raise ConfigError(f"split.num_folds: expected at least 2, got {num_folds}")
    if config.tracking.register is not None:
        raise ConfigError(
            f"tracking.register: registers one model, but split.fold=all trains {num_folds}; "
            "remove it"
        )
    _check_folds(config, num_folds, "split.num_folds")


def _check_folds(config: Config, num_folds: int, key: str) -> None:
    train = load_dataset(config.data, keep=True).train
    targets = train.targets.numpy()
    check_folds(train.folds, num_folds, key, targets=targets, groups=train.groups)


def _of_fold(cfg: DictConfig, fold: int) -> DictConfig:
    cfg = copy.deepcopy(cfg)
    with read_write(cfg), open_dict(cfg):
        OmegaConf.update(cfg, FOLD, fold)
    return cfg


def _remove_failed_start(fold_dir: Path) -> None:
    """Remove a fold that never began, so that the command can be given again."""
    if holds_run(fold_dir) or not fold_dir.is_dir():
        return
    if all(entry.name in LEFT_BY_A_FAILED_START for entry in fold_dir.iterdir()):
        shutil.rmtree(fold_dir, ignore_errors=True)


def _finish(context: RunContext, objectives: list[Objective]) -> Objective:
    """Write predictions and result of all folds; log them."""
    run_dir = context.run_dir
    fold_dirs = [run_dir / fold_name(fold) for fold in range(len(objectives))]
    found = [read_predictions(fold_dir) for fold_dir in fold_dirs]
    predictions = pool_predictions(found)
    absent_classes = context.config.metrics.absent_classes
    class_names = predictions.class_names
    metrics = metrics_of(predictions.val, class_names, absent_classes, "val")
    test = None
    if predictions.test is not None:
        test = metrics_of(predictions.test, class_names, absent_classes, "test")
    values = pooled_objectives(fold_dirs)
    result = _result(context, "finished") | {
        "others": {one.metric: one.value for one in values[1:]},
        "metrics": metrics,
        "test": test,
    }
    result["objective"]["value"] = values[0].value
    write_predictions(run_dir, predictions)
    for fold_dir in fold_dirs:
        _record(fold_dir, result)
    write_result(run_dir, result)  # last: with it, the run has finished
    for one in values:
        if not one.is_exact:
            log.info(
                "%s: predictions do not tell it: the mean of the folds, weighted by their images",
                one.metric,
            )
    log.info("%s", _final_line(result, len(predictions.val.ids)))
    log.info("run: %s", shown(run_dir))
    return objective_of(result)


def _record(fold_dir: Path, result: dict[str, Any]) -> None:
    """Add the objective of all folds to the record of one, where MLflow shows it."""
    objective = result["objective"]
    name = f"folds/{objective['metric'].removeprefix('val/')}"
    journal = Journal(fold_dir)
    try:
        if not any(name in record.get("values", ()) for record in journal.previous):
            journal.start(fold_dir.name, "", {}, {})  # resumes: the run keeps its name
            epochs = recorded_steps(journal.previous)
            journal.metrics(max(epochs, default=0), {name: objective["value"]})
            journal.end("finished")
    finally:
        journal.close()


def _final_line(result: dict[str, Any], num_images: int) -> str:
    metric, folds = result["objective"]["metric"], result["folds"]
    spread = "" if result["fold_std"] is None else f" +- {result['fold_std']:.2g}"
    parts = [
        f"{counted(len(folds), 'fold')}: {metric} {objective_text(result['objective']['value'])} "
        f"of all {num_images:,} images",
        f"mean of the folds {objective_text(result['fold_mean'])}{spread}",
    ]
    if result["test"] is not None:
        score = objective_text(result["test"]["test/f1_macro"])
        parts.append(f"test/f1_macro {score} (their mean prediction)")
    return f"{', '.join(parts)}  ({result['seconds']:.1f} s)"


def _result(context: RunContext, state: str) -> dict[str, Any]:
    """Return `result.json` of all folds, as far as they have finished: the keys of a run, and more.

    ``folds``: each fold's own objective; ``fold_mean`` and ``fold_std`` (n - 1) are over them.
    """
    objective = context.config.objective
    names = [fold_name(fold) for fold in range(context.config.split.num_folds)]
    results = {name: read_result(context.run_dir / name) for name in names}
    finished = {
        name: result
        for name, result in results.items()
        if result is not None and result["state"] == "finished"
    }
    values = [one["objective"]["value"] for one in finished.values()]
    values = [math.nan if value is None else value for value in values]
    return {
        "state": state,
        "objective": {
            "metric": objective.metric,
            "direction": objective.direction,
            "value": None,
        },
        "others": dict.fromkeys(objective.others),
        "best_epoch": None,  # each fold has its own
        "epochs": sum(one["epochs"] for one in finished.values()),
        "metrics": {},
        "test": None,
        "seconds": sum(one["seconds"] for one in finished.values()),
        "images_per_second": None,
        "folds": [
            {"directory": name, "value": one["objective"]["value"], "best_epoch": one["best_epoch"]}
            for name, one in finished.items()
        ],
        "fold_mean": statistics.fmean(values) if values else None,
        "fold_std": statistics.stdev(values) if len(values) > 1 else None,
    }


def pool_predictions(folds: list[Predictions]) -> Predictions:
    """Return the predictions of all folds as those of one run.

    Validation images have the logits of the fold that did not train on them, test images those of
    the folds' mean prediction. Of the worst mistakes, the worst of all folds remain.
    """
    val = pooled([fold.val for fold in folds])
    mistakes, images = _worst_of_all(folds, val)
    tests = [fold.test for fold in folds if fold.test is not None]
    test = mean_of(tests) if len(tests) == len(folds) else None
    return Predictions(folds[0].class_names, val, test, mistakes, images)


def _worst_of_all(
    folds: list[Predictions], val: SplitPredictions
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the rows in `val` and the pixels of the most confident mistakes of all folds."""
    rows = [np.searchsorted(val.ids, fold.val.ids[fold.mistakes]) for fold in folds]
    confidences = [fold.val.probabilities()[fold.mistakes].max(axis=1) for fold in folds]
    order = np.argsort(-np.concatenate(confidences), kind="stable")[:NUM_MISTAKES]
    images = np.concatenate([fold.mistake_images for fold in folds])[order]
    return np.concatenate(rows)[order].astype(np.int64), images
