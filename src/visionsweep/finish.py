"""The end of a run: the test split, the pictures, the result, and where all of it lies."""

import logging
from pathlib import Path
from typing import Any

from visionsweep.assembly import Experiment
from visionsweep.description import is_trial
from visionsweep.paths import shown
from visionsweep.recording import BEST, LAST, Recorder
from visionsweep.report.figures import confusion_matrix_png, curves_png
from visionsweep.results import RESULT, result_of, write_result
from visionsweep.tracking.journal import read_journal
from visionsweep.training import evaluate

log = logging.getLogger(__name__)

CONFUSION_MATRIX = "figures/confusion_matrix.png"
CURVES = "figures/curves.png"
SUMMARY_METRICS = ("val/f1_macro", "val/accuracy", "val/loss")
CHECKPOINTS = {"none": (), "best": (BEST,), "all": (BEST, LAST)}  # tracking.checkpoints


def finish(config: dict[str, Any], run_dir: Path, experiment: Experiment, recorder: Recorder) -> float:
    """Test the best checkpoint once, draw, write the result; return the best objective."""
    best = recorder.best_checkpoint()
    value = recorder.best.value
    assert value is not None  # best.pt exists
    settings, journal = experiment.settings, recorder.journal
    test = _test(experiment, best)

    confusion_matrix_png(best["matrix"].numpy(), settings.class_names, run_dir / CONFUSION_MATRIX)
    history = [entry["metrics"] for entry in recorder.history]
    curves_png(history, run_dir / CURVES, best_epoch=recorder.best.epoch)

    if not _has_summary(run_dir):  # a run may have died here before
        summary = {f"best/{k.removeprefix('val/')}": v for k, v in best["metrics"].items() if k in SUMMARY_METRICS}
        summary |= {f"best/{settings.objective.removeprefix('val/')}": value, "best/epoch": recorder.best.epoch}
        summary |= {k: v for k, v in (test or {}).items() if "/f1_class/" not in k}
        journal.metrics(len(history), summary)
    for picture in (CONFUSION_MATRIX, CURVES):
        journal.artifact(picture, "figures")
    for name in CHECKPOINTS[config["tracking"]["checkpoints"]]:
        journal.artifact(name, "checkpoints")
    write_result(run_dir, result_of(config, "finished", recorder, test=test))
    journal.artifact(RESULT)
    if not is_trial(config, run_dir):  # a sweep exports its best model only
        journal.model(BEST, step=recorder.best.epoch)
    journal.end("finished")
    log.info(
        "best epoch %d: %s %.4f%s  (%.1f s)",
        recorder.best.epoch,
        settings.objective,
        value,
        "" if test is None else f", test/f1_macro {test['test/f1_macro']:.4f}",
        recorder.seconds(),
    )
    log.info("run: %s", shown(run_dir))
    return value


def _test(experiment: Experiment, best: dict[str, Any]) -> dict[str, float] | None:
    if experiment.test is None:
        return None
    model = experiment.state.evaluated_model()
    model.load_state_dict(best["model"])
    evaluation = evaluate(model, experiment.state.loss, experiment.test, experiment.settings)
    return evaluation.metrics(experiment.settings, "test")


def _has_summary(run_dir: Path) -> bool:
    return any("best/epoch" in record.get("values", ()) for record in read_journal(run_dir))
