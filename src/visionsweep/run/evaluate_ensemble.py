"""The test split of an ensemble, on request: once, like that of a sweep's winner."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from visionsweep.answer.ensemble_run import scores
from visionsweep.answer.predictions import as_logits
from visionsweep.answer.score import score
from visionsweep.answer.stored_decisions import read_decisions
from visionsweep.config.paths import shown
from visionsweep.config.schema import TrackingConfig
from visionsweep.data.dataset import ImageSet
from visionsweep.errors import DataError, UserError
from visionsweep.run.assemble import load_dataset
from visionsweep.run.scores import record_scores, show_scores
from visionsweep.rundir.description import read_config
from visionsweep.rundir.layout import RESULT
from visionsweep.rundir.lock import locked
from visionsweep.rundir.predictions import SplitPredictions
from visionsweep.rundir.result import read_result
from visionsweep.training.predictor import Predictor, WeightedPredictor, load_predictors

_BATCH = 64  # images of a forward pass


def evaluate_ensemble(run_dir: Path) -> dict[Path, TrackingConfig]:
    """Evaluate an ensemble on the test images of its members' data; show and store the scores.

    Returns what is new for MLflow, as `evaluate_trial` does. Raises `UserError` if there is no test
    split, or its images differ between the members.
    """
    with locked(run_dir):
        result = read_result(run_dir)
        if result is None:
            raise UserError(f"run: {shown(run_dir)} has no {RESULT}; make the ensemble again")
        if result["test"] is not None:
            show_scores(run_dir, result["test"], "evaluated already")
            return {}
        members = load_predictors(run_dir)
        test = _predict(run_dir, members)
        metrics = scores(test, "test")
        decisions = read_decisions(run_dir, test.logits.shape[1])
        if decisions is not None:
            decided = decisions.decisions.apply(test.probabilities())
            metrics["test/f1_macro_decisions"] = score("f1_macro", decided, test.targets)
        record_scores(run_dir, test, {**result, "test": metrics}, step=0)
    show_scores(run_dir, metrics, f"mean of {len(members)} networks")
    tracking = read_config(run_dir).get("tracking")
    if not isinstance(tracking, dict) or not tracking.get("enabled"):
        return {}
    return {run_dir: OmegaConf.to_object(OmegaConf.merge(TrackingConfig, tracking))}  # type: ignore[dict-item]


def _predict(run_dir: Path, members: list[WeightedPredictor]) -> SplitPredictions:
    """Return the mean prediction for the test images; each member sees them in its own size."""
    total: NDArray[np.float64] | None = None
    first: ImageSet | None = None
    for member in members:
        node: Any = read_config(member.directory)["data"]
        test = load_dataset(node, keep=True).test
        if test is None:
            raise UserError(
                f"run: {shown(run_dir)}: its data has no test split; predict other images with: "
                "visionsweep predict"
            )
        first = test if first is None else first
        if test.ids != first.ids:
            raise DataError(
                f"run: {shown(run_dir)}: its members have different test images; predict them with "
                "visionsweep predict"
            )
        part = member.weight * _probabilities(member.predictor, test)
        total = part if total is None else total + part
    assert first is not None  # an ensemble has members
    assert total is not None
    targets = first.targets.numpy()
    images = SplitPredictions(np.array(first.ids, np.str_), targets, np.zeros((0, 0), np.float32))
    return as_logits(images, total)


@torch.inference_mode()
def _probabilities(predictor: Predictor, test: ImageSet) -> NDArray[np.float64]:
    parts = [
        predictor(test.images[torch.arange(start, min(start + _BATCH, len(test)))])
        for start in range(0, len(test), _BATCH)
    ]
    return torch.cat(parts).double().numpy()
