"""The scores of the test split, when they are added to a run that has ended."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionsweep.config.paths import shown
from visionsweep.run.finish import overall
from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import PREDICTIONS, RESULT
from visionsweep.rundir.predictions import SplitPredictions, read_predictions, write_predictions
from visionsweep.rundir.result import write_result

log = logging.getLogger(__name__)


def record_scores(run_dir: Path, test: SplitPredictions, result: dict[str, Any], step: int) -> None:
    """Add the predictions and ``result["test"]`` to the run; `step` is that of the metrics.

    The result comes last: without it, all is done again.
    """
    metrics = overall(result["test"])
    journal = Journal(run_dir)
    try:
        journal.start(run_dir.name, "", {}, {})  # resumes: the run keeps its name and experiment
        if not any(metrics.keys() & set(record.get("values", ())) for record in journal.previous):
            journal.metrics(step, metrics)
        write_predictions(run_dir, replace(read_predictions(run_dir), test=test))
        journal.artifact(PREDICTIONS)
        write_result(run_dir, result)
        journal.artifact(RESULT)
        journal.end("finished")
    finally:
        journal.close()


def show_scores(run_dir: Path, metrics: dict[str, float], note: str) -> None:
    """Log the scores of a run, those of single classes aside."""
    listed = ", ".join(f"{name} {value:.4f}" for name, value in overall(metrics).items())
    log.info("%s (%s): %s", shown(run_dir), note, listed)
