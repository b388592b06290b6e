"""The directory of an ensemble: a run like any other, with everything that prediction needs.

    config.yaml         which runs, with which weights
    members/0/ ...      each with the config and the best checkpoint of its run (a hard link, or a
                        copy where there can be none), so the runs themselves may be removed
    predictions.npz     what the ensemble says of the validation images: cross-fitted, so that
                        nothing computed from it is too good
    result.json         events.jsonl         decisions.json, if it has any

The last line's are written as for a soup, by `combined_run`.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from visionsweep.answer.combined_run import Combined, new_directory, write_records
from visionsweep.answer.ensemble import Choice, Method
from visionsweep.answer.members import ENSEMBLE, Member
from visionsweep.answer.predictions import FinishedRun, as_logits, mean_of
from visionsweep.answer.score import METRICS, Metric, score
from visionsweep.answer.stored_decisions import StoredDecisions, write_decisions
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import BEST, CONFIG, MEMBERS
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    worst_mistakes,
    write_predictions,
)


@dataclass(frozen=True)
class Ensemble:
    """Chosen members, and how they were chosen."""

    method: Method
    metric: Metric
    members: Sequence[Member]  # those that were chosen from
    choice: Choice
    decisions: StoredDecisions | None

    def weighted_runs(self) -> list[tuple[FinishedRun, float]]:
        """Return the runs with their weights: the folds of a member share its weight evenly."""
        return [
            (run, float(self.choice.weights[index]) / len(self.members[index].runs))
            for index in self.choice.used
            for run in self.members[index].runs
        ]


def write_ensemble(out: Path, ensemble: Ensemble, command: str) -> None:
    """Write the directory of an ensemble. ``command``: as typed, for the record."""
    predictions = _predictions(ensemble)
    with new_directory(out) as directory:
        entries = []
        for number, (run, weight) in enumerate(ensemble.weighted_runs()):
            place = f"{MEMBERS}/{number}"
            link_or_copy(run.directory / BEST, directory / place / BEST)
            write_text(directory / place / CONFIG, (run.directory / CONFIG).read_text("utf-8"))
            source = str(run.directory.absolute())
            entries.append({"directory": place, "weight": weight, "run": source})
        config = _config(ensemble, entries, out.name)
        write_text(directory / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        write_predictions(directory, predictions)
        if ensemble.decisions is not None:
            write_decisions(directory, ensemble.decisions)
        write_records(directory, out, _combined(ensemble, predictions, entries), command)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link, or a copy where there can be none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _config(ensemble: Ensemble, entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the config: the ensemble, and what readers of a run's config look up."""
    first = ensemble.members[0].runs[0].config
    metric, direction = _objective(ensemble.metric)
    kept = {key: first[key] for key in ("data", "tracking", "metrics", "seed") if key in first}
    split = {**first.get("split", {}), "fold": None}
    how = {"method": ensemble.method, "metric": ensemble.metric, "members": entries}
    objective = {"metric": metric, "direction": direction, "others": {}}
    return {ENSEMBLE: how, "objective": objective, **kept, "split": split, "name": name}


def _objective(metric: Metric) -> tuple[str, str]:
    return f"val/{metric}", "minimize" if metric == "log_loss" else "maximize"


def _predictions(ensemble: Ensemble) -> Predictions:
    used, choice = ensemble.choice.used, ensemble.choice
    members = [ensemble.members[index] for index in used]
    val = as_logits(members[0].val, choice.predicted)
    tests = [member.test for member in members if member.test is not None]
    test = None
    if len(tests) == len(members):
        test = mean_of(tests, choice.weights[used].tolist())
    mistakes, images = _mistakes(members, val)
    return Predictions(members[0].class_names, val, test, mistakes, images)


def _mistakes(members: Sequence[Member], val: SplitPredictions) -> tuple[Any, Any]:
    """Return the ensemble's worst mistakes among those whose pictures a member has kept."""
    pictures: dict[str, Any] = {}
    for member in members:
        for run in member.runs:
            stored = run.predictions()
            ids = stored.val.ids[stored.mistakes].tolist()
            pictures |= dict(zip(ids, stored.mistake_images, strict=True))
    shape = next(iter(pictures.values())).shape if pictures else (1, 1, 1)
    places = [
        row
        for row, name in enumerate(val.ids.tolist())
        if name in pictures and pictures[name].shape == shape
    ]
    rows = np.array(places, dtype=np.int64)
    worst = rows[worst_mistakes(val.logits[rows], val.targets[rows])] if places else rows
    shown_pictures = [pictures[name] for name in val.ids[worst].tolist()]
    images = np.array(shown_pictures, dtype=np.uint8).reshape(len(worst), *shape)
    return worst, images


def _combined(
    ensemble: Ensemble, predictions: Predictions, entries: Sequence[dict[str, Any]]
) -> Combined:
    choice = ensemble.choice
    return Combined(
        kind="ensemble",
        how={"method": ensemble.method, "metric": ensemble.metric},
        weights={entry["run"]: entry["weight"] for entry in entries},
        value=choice.score,
        metrics=scores(predictions.val, "val"),
        test=None if predictions.test is None else scores(predictions.test, "test"),
        details={
            "cross_fitted": choice.score,
            "on_the_images_chosen_on": choice.raw_score,
            "best_member": ensemble.members[choice.best].name,
            "best_member_cross_fitted": choice.best_score,
            "best_member_on_the_images_chosen_on": choice.best_raw_score,
            "gain": choice.gain,
            "gain_interval": [choice.low, choice.high],
        },
        model=CONFIG,
    )


def scores(split: SplitPredictions, prefix: str) -> dict[str, float]:
    """Return every metric of the predictions for a split, each named ``prefix/name``."""
    probabilities = split.probabilities()
    return {f"{prefix}/{name}": score(name, probabilities, split.targets) for name in METRICS}
