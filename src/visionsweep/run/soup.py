"""A soup: one network whose weights are the mean of several runs' (Wortsman et al. 2022).

arXiv 2203.05482, section 2, the uniform soup. The mean of weights is a network only if all of them
are near each other, so all must have started from the same pretrained weights. The running
statistics of BatchNorm are averaged like the weights, as `trainer.swa` does it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from visionsweep.answer.combined_run import Combined, new_directory, write_records
from visionsweep.answer.ensemble_run import scores
from visionsweep.answer.keeping import with_weights
from visionsweep.answer.members import Member, read_members
from visionsweep.answer.predictions import FinishedRun, mean_of
from visionsweep.answer.score import score
from visionsweep.config.paths import shown
from visionsweep.errors import ConfigError, DataError
from visionsweep.models.freezing import TRANSFER_KEYS
from visionsweep.run.evaluate import config_of_run, parts_of_run
from visionsweep.run.finish import evaluate_split, split_predictions
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import BEST, CONFIG, ENVIRONMENT, SPLIT
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    worst_mistakes,
    write_predictions,
)
from visionsweep.training import checkpoint

_MEMBER_MAY_DIFFER = ("class_counts",)  # of what best.pt says of its images


def write_soup(directories: Sequence[Path], out: Path, command: str) -> list[str]:
    """Write the soup of all runs that keep their weights as a run; return the lines about it.

    Raises `UserError` if the runs did not start from the same pretrained weights, do not take the
    same images, or have different validation images.
    """
    found = read_members(directories)
    members = [found.members[index] for index in with_weights(found.members)]
    runs = [_single_run(member) for member in members]
    _check_start(runs)
    contents = _averaged([run.directory for run in runs])
    first = runs[0]
    config = dict(first.config) | {"name": out.name}
    parts = parts_of_run(first.directory, config_of_run(first.directory))
    parts.state.load_inference_weights(contents["model"])
    evaluation = evaluate_split(parts, parts.val, "val with the mean of the weights")
    val = split_predictions(evaluation, parts.dataset.train, parts.val_indices)
    metrics = evaluation.metrics(parts.settings, "val")
    mistakes = worst_mistakes(val.logits, val.targets)
    images = parts.dataset.train.images[torch.from_numpy(parts.val_indices[mistakes])].numpy()
    with new_directory(out) as directory:
        checkpoint.save(contents | {"epoch": 0, "metrics": metrics}, directory / BEST)
        for name in (ENVIRONMENT, SPLIT):
            shutil.copyfile(first.directory / name, directory / name)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_text(directory / CONFIG, text)
        write_predictions(
            directory, Predictions(parts.dataset.class_names, val, None, mistakes, images)
        )
        sources = [str(run.directory.absolute()) for run in runs]
        combined = Combined(
            kind="soup",
            how={"method": "soup"},
            weights=dict.fromkeys(sources, 1 / len(sources)),
            value=metrics.get(config["objective"]["metric"]),
            metrics=metrics,
            test=None,
            details=sources,
            model=BEST,
        )
        write_records(directory, out, combined, command)
    return [f"left out: {line}" for line in found.left_out] + _lines(members, val)


def _single_run(member: Member) -> FinishedRun:
    if member.is_folds:
        raise DataError(
            f"method=soup: {member.name} has {len(member.runs)} folds, each of which trained on "
            "the others' validation images, so no image is left to judge their mean by; set "
            "method=uniform"
        )
    return member.runs[0]


def _check_start(runs: Sequence[FinishedRun]) -> None:
    if len(runs) < 2:
        raise ConfigError(
            f"method=soup: expected at least 2 runs with weights, found {len(runs)}; give more, or "
            "set hydra.sweeper.keep_checkpoints in the sweep"
        )
    starts = [_start(run) for run in runs]
    for run, start in zip(runs, starts, strict=True):
        if not start.get("pretrained"):
            raise ConfigError(
                f"method=soup: {shown(run.directory)} did not start from pretrained weights "
                f"(model.pretrained={str(start.get('pretrained')).lower()}), and the mean of "
                "networks that were trained from different random weights is no network; set "
                "method=greedy"
            )
        if start != starts[0]:
            key = next(k for k in {**start, **starts[0]} if start.get(k) != starts[0].get(k))
            raise ConfigError(
                f"method=soup: {shown(runs[0].directory)} and {shown(run.directory)} started "
                f"differently (model.{key}: {starts[0].get(key)} and {start.get(key)}); give runs "
                "of one pretrained model, or set method=greedy"
            )


def _start(run: FinishedRun) -> dict[str, Any]:
    """Return the settings of a model that say which weights it starts from."""
    ignored = (*TRANSFER_KEYS, "drop_rate")
    return {key: value for key, value in run.config["model"].items() if key not in ignored}


def _averaged(run_dirs: Sequence[Path]) -> dict[str, Any]:
    """Return the checkpoint of the first run with the mean of all weights; counters as they are."""
    first = checkpoint.load(run_dirs[0] / BEST)
    totals: dict[str, Tensor] = {key: value.double() for key, value in first["model"].items()}
    expected = _images_taken(first)
    for run_dir in run_dirs[1:]:
        contents = checkpoint.load(run_dir / BEST)
        weights = contents["model"]
        same = weights.keys() == totals.keys() and all(
            weights[key].shape == totals[key].shape for key in totals
        )
        if not same or _images_taken(contents) != expected:
            what = (
                "weights of other shapes" if not same else "other images or another normalization"
            )
            raise DataError(
                f"method=soup: {shown(run_dir)} has {what} than {shown(run_dirs[0])}; give runs of "
                "one model and one data set"
            )
        for key, value in weights.items():
            totals[key] += value.double()
    count = len(run_dirs)
    model = {
        key: (totals[key] / count).to(value.dtype) if value.is_floating_point() else value
        for key, value in first["model"].items()
    }
    return {**first, "model": model}


def _images_taken(contents: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in contents["inference"].items() if k not in _MEMBER_MAY_DIFFER}


def _lines(members: Sequence[Member], val: SplitPredictions) -> list[str]:
    """Return what the soup is worth beside its best member, and beside the mean of predictions."""
    soup = scores(val, "val")
    values = [score("log_loss", m.val.probabilities(), m.val.targets) for m in members]
    best = min(range(len(members)), key=values.__getitem__)
    mean = mean_of([member.val for member in members])
    assert mean is not None  # read_members compared their images
    together = scores(mean, "val")
    return [
        f"soup of {len(members)}: val/f1_macro {soup['val/f1_macro']:.4f}, val/log_loss "
        f"{soup['val/log_loss']:.4f} (nothing was chosen by them)",
        f"best single member by log loss: {members[best].name}, val/log_loss {values[best]:.4f}",
        f"the mean of the {len(members)} members' predictions (method=uniform): val/f1_macro "
        f"{together['val/f1_macro']:.4f}, val/log_loss {together['val/log_loss']:.4f}",
    ]
