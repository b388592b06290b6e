"""The networks of one or several runs, with their shares of the mean."""

from collections.abc import Sequence
from pathlib import Path

from visionsweep.config.paths import shown
from visionsweep.rundir.layout import whole_trial
from visionsweep.training.predictor import WeightedPredictor, load_predictors


def load_networks(
    directories: Sequence[Path], device: str
) -> tuple[list[WeightedPredictor], list[str]]:
    """Return the networks of all directories, each of which has the same share, and what to say.

    A directory is that of a run, an ensemble, or a trial of several seeds or folds; the link to a
    sweep's best run stands for its whole trial.
    """
    members, lines = [], []
    for directory in directories:
        found = load_predictors(whole_trial(directory), device)
        members += [
            WeightedPredictor(each.predictor, each.weight / len(directories), each.directory)
            for each in found
        ]
        if len(found) > 1:
            lines.append(f"{shown(directory)}: the mean of {len(found)} networks")
    return members, lines
