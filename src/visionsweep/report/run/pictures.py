"""The pictures of a run and the table of its classes, drawn from the run's files alone.

Whoever shows them draws them: the uploader after the run has ended, and `visionsweep report`.
Imports no torch.
"""

from pathlib import Path
from typing import Any

import numpy as np

from visionsweep.report.run.confusion_matrix import confusion_matrix, draw_confusion_matrix
from visionsweep.report.run.drawing import drawing_style
from visionsweep.report.run.learning_curves import draw_learning_curves, read_curves
from visionsweep.report.run.mistakes import draw_mistakes
from visionsweep.report.run.per_class import write_per_class
from visionsweep.report.run.pr_curves import draw_pr_curves
from visionsweep.report.run.reliability import draw_reliability
from visionsweep.rundir.description import read_config
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import FIGURES
from visionsweep.rundir.predictions import read_predictions
from visionsweep.rundir.result import read_result

CONFUSION_MATRIX = f"{FIGURES}/confusion_matrix.png"
CURVES = f"{FIGURES}/curves.png"
PER_CLASS = f"{FIGURES}/per_class.csv"
PR_CURVES = f"{FIGURES}/pr_curves.png"
RELIABILITY = f"{FIGURES}/reliability.png"
MISTAKES = f"{FIGURES}/mistakes.png"


def draw(run_dir: Path) -> list[str]:
    """Draw the pictures of a finished run; return their paths relative to `run_dir`.

    They show the best checkpoint on the validation images. Raises `DataError` if the run has no
    predictions.
    """
    predictions = read_predictions(run_dir)
    names, val = predictions.class_names, predictions.val
    # a network that overflowed still gets its pictures
    probabilities = np.nan_to_num(val.probabilities())
    preds = probabilities.argmax(axis=1)
    matrix = confusion_matrix(preds, val.targets, len(names))
    result = read_result(run_dir) or {}
    worst = predictions.mistakes
    with drawing_style([*names, *val.ids[worst]]):
        draw_confusion_matrix(matrix, names, run_dir / CONFUSION_MATRIX)
        curves = read_curves(read_journal(run_dir))
        draw_learning_curves(curves, run_dir / CURVES, best_epoch=result.get("best_epoch"))
        write_per_class(matrix, names, run_dir / PER_CLASS, _absent_classes(run_dir))
        draw_pr_curves(probabilities, val.targets, names, run_dir / PR_CURVES)
        draw_reliability(probabilities, val.targets, run_dir / RELIABILITY)
        draw_mistakes(
            predictions.mistake_images,
            [names[k] for k in val.targets[worst]],
            [names[k] for k in preds[worst]],
            probabilities[worst, preds[worst]],
            val.ids[worst].tolist(),
            run_dir / MISTAKES,
        )
    return [CONFUSION_MATRIX, CURVES, PER_CLASS, PR_CURVES, RELIABILITY, MISTAKES]


def _absent_classes(run_dir: Path) -> Any:
    metrics = read_config(run_dir).get("metrics")
    return metrics.get("absent_classes") if isinstance(metrics, dict) else None
