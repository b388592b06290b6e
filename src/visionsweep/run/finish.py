"""The end of a run: the test split, its predictions, its result.

Owns the order of the last writes: predictions, result, end of the journal; a trial then loses its
last checkpoint. A trial whose process dies in between ends as its result says.
"""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from visionsweep.config.paths import shown
from visionsweep.data.batches import EvalBatches
from visionsweep.data.dataset import ImageSet
from visionsweep.data.split_manifest import shown_groups
from visionsweep.program import command
from visionsweep.run.assemble import RunParts
from visionsweep.run.context import RunContext
from visionsweep.run.identity import run_title, score_text
from visionsweep.run.recorder import Recorder
from visionsweep.rundir.journal import RUN_NAME_TAG, Journal, State
from visionsweep.rundir.layout import BEST, CHECKPOINTS, LAST, PREDICTIONS, RESULT
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    worst_mistakes,
    write_predictions,
)
from visionsweep.rundir.result import (
    NUM_PARAMETERS,
    Objective,
    objective_of,
    read_result,
    write_result,
)
from visionsweep.sweep.trial import TrialPruned
from visionsweep.training import checkpoint
from visionsweep.training.evaluation import Evaluation, evaluate

log = logging.getLogger(__name__)

SUMMARY_METRICS = ("val/f1_macro", "val/accuracy", "val/loss")
# tracking.checkpoints -> what is sent
SENT_CHECKPOINTS = {"none": (), "best": (BEST,), "all": (BEST, LAST)}


def finish(context: RunContext, parts: RunParts, recorder: Recorder) -> Objective:
    """Predict with the best checkpoint, write the result; return the best objective."""
    run_dir, journal, stopping = context.run_dir, recorder.journal, recorder.stopping
    objective = context.config.objective.metric
    best = checkpoint.load(run_dir / BEST)
    assert stopping.best is not None
    parts.state.load_inference_weights(best["model"])
    val = evaluate_split(parts, parts.val, "val with the best checkpoint")
    tested = None
    test_batches = None if context.is_in_sweep else parts.test
    if test_batches is not None:
        tested = evaluate_split(parts, test_batches, "test")
    test = None if tested is None else tested.metrics(parts.settings, "test")
    if not any("best/epoch" in record.get("values", ()) for record in journal.previous):
        summary = _summary(recorder, objective, best["metrics"]) | overall(test or {})
        journal.metrics(len(recorder.history), summary)
    _write_predictions(run_dir, parts, val, tested, recorder.epoch_preds())
    journal.artifact(PREDICTIONS)
    for name in SENT_CHECKPOINTS[context.config.tracking.checkpoints]:
        if name != LAST or not context.is_trial:  # a trial loses it below
            journal.artifact(name, CHECKPOINTS)
    journal.tags({RUN_NAME_TAG: run_title(context, score_text(objective, stopping.best))})
    result = result_of(context, "finished", parts, recorder, test=test)
    write_result(run_dir, result)
    if context.place is None:  # a sweep exports only its best model
        journal.model(BEST, stopping.best_epoch, register=context.config.tracking.register)
    end(context, journal, "finished")
    tested_text = "" if test is None else f", test/f1_macro {test['test/f1_macro']:.4f}"
    log.info(
        "%s epoch %d: %s %.4f%s  (%.1f s)",
        *(
            context.config.trainer.checkpoint,
            stopping.best_epoch,
            objective,
            stopping.best,
            tested_text,
            recorder.seconds(),
        ),
    )
    log.info("run: %s", shown(run_dir))
    if parts.dataset.test is not None and tested is None:
        log.info(
            "a sweep does not evaluate the test split; for its best run: %s run=%s",
            *(command("evaluate"), shown(run_dir)),
        )
    return objective_of(result)


def evaluate_split(parts: RunParts, batches: EvalBatches, where: str) -> Evaluation:
    """Return loss, metrics and logits of the model. `where` names the split in an error."""
    state = parts.state
    model = state.evaluated_model()
    return evaluate(model, state.loss, batches, parts.settings, where=where, keep_logits=True)


def _summary(recorder: Recorder, objective: str, best: dict[str, float]) -> dict[str, float]:
    """Return the numbers that a table of runs is sorted by: of the best and the last epoch."""
    assert recorder.stopping.best is not None
    last = recorder.history[-1]["metrics"]
    return {
        **{f"best/{k.removeprefix('val/')}": best[k] for k in SUMMARY_METRICS if k in best},
        f"best/{objective.removeprefix('val/')}": recorder.stopping.best,
        "best/epoch": recorder.stopping.best_epoch,
        **{f"final/{k.removeprefix('val/')}": last[k] for k in SUMMARY_METRICS if k in last},
    }


def overall(metrics: dict[str, float]) -> dict[str, float]:
    """Leave out the F1 of each class."""
    return {name: value for name, value in metrics.items() if "/f1_class/" not in name}


def _write_predictions(
    run_dir: Path,
    parts: RunParts,
    val: Evaluation,
    test: Evaluation | None,
    epoch_preds: NDArray[np.int16] | None,
) -> None:
    dataset = parts.dataset
    val_predictions = split_predictions(val, dataset.train, parts.val_indices)
    test_predictions = None
    if test is not None and dataset.test is not None:
        test_predictions = split_predictions(test, dataset.test, np.arange(len(dataset.test)))
    mistakes = worst_mistakes(val_predictions.logits, val_predictions.targets)
    images = dataset.train.images[torch.from_numpy(parts.val_indices[mistakes])].numpy()
    write_predictions(
        run_dir,
        Predictions(
            *(dataset.class_names, val_predictions, test_predictions, mistakes, images, epoch_preds)
        ),
    )


def split_predictions(
    evaluation: Evaluation, image_set: ImageSet, indices: np.ndarray
) -> SplitPredictions:
    """Return the logits of an evaluation with the ids, targets and groups of its images."""
    assert evaluation.logits is not None
    groups = shown_groups(image_set)
    return SplitPredictions(
        ids=np.array([image_set.ids[index] for index in indices.tolist()], dtype=np.str_),
        targets=image_set.targets.numpy()[indices],
        logits=evaluation.logits.numpy(),
        groups=np.array([groups[index] for index in indices.tolist()], dtype=np.str_),
    )


def result_of(
    context: RunContext,
    state: State,
    parts: RunParts | None = None,
    recorder: Recorder | None = None,
    *,
    test: dict[str, float] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """Return the contents of `result.json`; ``metrics`` and ``others`` are of the best epoch.

    A run whose parts could not be built has neither ``parts`` nor ``recorder``.
    """
    objective = context.config.objective
    best_epoch = (recorder.stopping.best_epoch if recorder else 0) or None
    metrics = _best_metrics(recorder) if recorder else {}
    result = {
        "state": state,
        "objective": {
            "metric": objective.metric,
            "direction": objective.direction,
            "value": recorder.stopping.best if recorder else None,
        },
        "others": _others(context, parts, metrics),
        "best_epoch": best_epoch,
        "epochs": len(recorder.history) if recorder else 0,
        "metrics": metrics,
        "test": test,
        "seconds": recorder.seconds() if recorder else 0.0,
        "images_per_second": recorder.images_per_second() if recorder else None,
    }
    return result if error is None else {**result, "error": error}


def objective_so_far(context: RunContext, parts: RunParts, recorder: Recorder) -> Objective:
    """Return the objective that the run would return if it ended after its last epoch."""
    assert recorder.stopping.best is not None
    others = _others(context, parts, _best_metrics(recorder)).values()
    known = [math.nan if value is None else float(value) for value in others]
    return (recorder.stopping.best, *known) if known else recorder.stopping.best


def _best_metrics(recorder: Recorder) -> dict[str, float]:
    """Return the metrics of the best epoch; none before the first one."""
    best_epoch = recorder.stopping.best_epoch
    return recorder.history[best_epoch - 1]["metrics"] if best_epoch else {}


def _others(
    context: RunContext, parts: RunParts | None, metrics: dict[str, float]
) -> dict[str, float | None]:
    """Return the further objectives, given the metrics of the best epoch; None: unknown."""
    known = metrics | {NUM_PARAMETERS: parts.num_parameters} if parts else {}
    return {name: known.get(name) for name in context.config.objective.others}


def end(
    context: RunContext,
    journal: Journal,
    state: Literal["finished", "pruned", "failed"],
    *,
    keep_last: bool = False,
) -> None:
    """End the journal of a run whose result is written, and remove a trial's last checkpoint.

    ``keep_last``: keep it, since the trial may be started again.
    """
    if state != "failed":
        journal.artifact(RESULT)
    journal.end(state)
    if context.is_trial and not keep_last:
        (context.run_dir / LAST).unlink(missing_ok=True)


def ended_objective(context: RunContext) -> Objective | None:
    """Return the objective of a trial that finished earlier; None if it has to be resumed.

    Its process may have died after the result was written: what `end` does is done now. Raises
    `TrialPruned` for a trial that was pruned earlier.
    """
    result = read_result(context.run_dir)
    if result is None or result["state"] not in ("finished", "pruned"):
        return None
    state = result["state"]
    journal = Journal(context.run_dir)
    try:
        if journal.previous[-1]["type"] == "end":
            (context.run_dir / LAST).unlink(missing_ok=True)
        else:
            end(context, journal, state)
    finally:
        journal.close()
    log.info("%s: %s already", shown(context.run_dir), state)
    if state == "pruned":
        raise TrialPruned(f"after epoch {result['epochs']}")
    return objective_of(result)
