"""The end of a run: the test split, the pictures, the result, and where all of it lies.

Owns the order of the last writes: the result, then the end of the journal, then a trial's `last.pt` goes. A trial
whose process dies in between is taken up by what its result says.
"""

import logging
from pathlib import Path
from typing import Any, Literal

from visionsweep.config.paths import shown
from visionsweep.report.run.pictures import FIGURES, draw
from visionsweep.run.assemble import Experiment
from visionsweep.run.identity import score_text, trial_place
from visionsweep.run.recorder import Recorder
from visionsweep.rundir.journal import CHECKPOINT_FOLDER, RUN_NAME_TAG, Journal, read_journal
from visionsweep.rundir.result import (
    BEST,
    LAST,
    RESULT,
    Objective,
    objective_of,
    result_of,
    write_result,
)
from visionsweep.sweep.trial import current_trial
from visionsweep.training.loop import evaluate

log = logging.getLogger(__name__)

SUMMARY_METRICS = ("val/f1_macro", "val/accuracy", "val/loss")
CHECKPOINTS = {"none": (), "best": (BEST,), "all": (BEST, LAST)}  # tracking.checkpoints


def finish(
    config: dict[str, Any], run_dir: Path, experiment: Experiment, recorder: Recorder, title: str
) -> Objective:
    """Test the best checkpoint once, draw, write the result; return the best objective (see `Objective`)."""
    best = recorder.best_checkpoint()
    value = recorder.best.value
    assert value is not None  # best.pt exists
    settings, journal = experiment.settings, recorder.journal
    model = experiment.state.evaluated_model()
    model.load_state_dict(best["model"])
    test = _test(experiment)
    history = [entry["metrics"] for entry in recorder.history]
    if not _has_summary(run_dir):  # a run may have died here before
        journal.metrics(
            len(history), _summary(recorder, best["metrics"], history[-1], test, settings.objective)
        )
    for path in draw(run_dir, experiment, best["matrix"].numpy(), history, recorder.best.epoch):
        journal.artifact(path, FIGURES)
    for name in CHECKPOINTS[config["tracking"]["checkpoints"]]:
        if name != LAST or not _is_in_sweep():  # there it goes below
            journal.artifact(name, CHECKPOINT_FOLDER)
    journal.tags({RUN_NAME_TAG: f"{title} {score_text(settings.objective, value)}"})
    result = result_of(config, "finished", recorder, test=test)
    write_result(run_dir, result)
    if trial_place(config, run_dir) is None:  # a sweep exports its best model only
        journal.model(BEST, step=recorder.best.epoch, register=config["tracking"]["register"])
    end(journal, run_dir, "finished")
    log.info(
        "best epoch %d: %s %.4f%s  (%.1f s)",
        recorder.best.epoch,
        settings.objective,
        value,
        "" if test is None else f", test/f1_macro {test['test/f1_macro']:.4f}",
        recorder.seconds(),
    )
    log.info("run: %s", shown(run_dir))
    return objective_of(result)


def _summary(
    recorder: Recorder,
    best: dict[str, float],
    last: dict[str, float],
    test: dict[str, float] | None,
    objective: str,
) -> dict[str, float]:
    """Return the numbers that a table of runs is sorted by: each is there once, whatever came after the best epoch."""
    assert recorder.best.value is not None
    summary: dict[str, float] = {
        f"best/{k.removeprefix('val/')}": best[k] for k in SUMMARY_METRICS if k in best
    }
    summary |= {
        f"best/{objective.removeprefix('val/')}": recorder.best.value,
        "best/epoch": recorder.best.epoch,
    }
    summary |= {f"final/{k.removeprefix('val/')}": last[k] for k in SUMMARY_METRICS if k in last}
    return summary | {k: v for k, v in (test or {}).items() if "/f1_class/" not in k}


def end(
    journal: Journal,
    run_dir: Path,
    state: Literal["finished", "pruned", "failed"],
    *,
    keep: bool = False,
) -> None:
    """Close the record of a run whose result is written; the trial of a sweep needs no `last.pt` any more.

    ``keep``: leave it, since the trial may be started again.
    """
    if state != "failed":
        journal.artifact(RESULT)
    journal.end(state)
    if _is_in_sweep() and not keep:
        (run_dir / LAST).unlink(missing_ok=True)


def end_again(run_dir: Path, state: Literal["finished", "pruned"]) -> None:
    """Do what is left of `end` for a trial whose process may have died after its result was written."""
    journal = Journal(run_dir)
    try:
        records = read_journal(run_dir)
        if records[-1]["type"] == "end":
            (run_dir / LAST).unlink(missing_ok=True)
        else:
            end(journal, run_dir, state)
    finally:
        journal.close()


def _is_in_sweep() -> bool:
    return current_trial().number is not None


def _test(experiment: Experiment) -> dict[str, float] | None:
    """Return the metrics of the model as it stands on the test split, where there is one."""
    if experiment.test is None:
        return None
    evaluation = evaluate(
        experiment.state.evaluated_model(),
        experiment.state.loss,
        experiment.test,
        experiment.settings,
    )
    return evaluation.metrics(experiment.settings, "test")


def _has_summary(run_dir: Path) -> bool:
    return any("best/epoch" in record.get("values", ()) for record in read_journal(run_dir))
