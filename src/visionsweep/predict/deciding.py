"""Which decisions the labels of a submission follow: stored ones, or fitted to held-out images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from visionsweep.answer.decisions import Decisions, HeldOut
from visionsweep.answer.members import read_members
from visionsweep.answer.stored_decisions import (
    Wanted,
    decide,
    parse_test_prior,
    read_decisions,
)
from visionsweep.config.paths import shown
from visionsweep.errors import ConfigError
from visionsweep.predict.arguments import Arguments
from visionsweep.predict.infer import PredictedBatch
from visionsweep.rundir.layout import PREDICTIONS, whole_trial
from visionsweep.rundir.predictions import read_predictions


def decide_labels(
    arguments: Arguments, class_names: Sequence[str], *, has_label: bool
) -> tuple[Decisions | None, list[str]]:
    """Return the decisions to apply, if any, and the lines that say so.

    Those of an ensemble are read; others are fitted to what the runs predicted for their validation
    images. ``has_label``: whether the submission has a column of labels. Raises `ConfigError`.
    """
    use, prior_text = arguments.decisions.use, arguments.decisions.test_prior
    test_prior = parse_test_prior(prior_text)
    if use in ("stored", "none"):
        if prior_text != "train":
            raise ConfigError(
                f"decisions.test_prior={prior_text}: is read where decisions are fitted; set "
                f"decisions=auto, prior or offsets (decisions={use} fits none)"
            )
        if use == "none":
            return None, []
        return _stored(arguments, len(class_names), has_label=has_label)
    if not has_label:
        raise ConfigError(
            f"decisions={use}: is about labels, and the sample has one column per class; set "
            "decisions=none"
        )
    found, lines = decide(cast(Wanted, use), held_out(arguments), test_prior)
    return (None if found is None else found.decisions), lines


def _stored(
    arguments: Arguments, num_classes: int, *, has_label: bool
) -> tuple[Decisions | None, list[str]]:
    found = [read_decisions(run_dir, num_classes) for run_dir in arguments.run]
    stored = [each for each in found if each is not None]
    if not stored:
        return None, []
    if len(found) > 1:
        return None, [
            "decisions: none, since those of an ensemble are not for its mean with another run; "
            "decisions=auto fits new ones"
        ]
    if not has_label:
        return None, ["decisions: none, since they are about labels and not about probabilities"]
    return stored[0].decisions, [f"{stored[0].line}; decisions=none leaves them out"]


def held_out(arguments: Arguments) -> HeldOut:
    """Return what the runs predicted for the images that they were validated on."""
    places = [whole_trial(run) for run in arguments.run]  # as for the networks
    if len(places) == 1 and (places[0] / PREDICTIONS).is_file():
        val = read_predictions(places[0]).val
        return HeldOut(val.probabilities(), val.targets, val.groups)
    found = read_members(places)
    if found.left_out:
        raise ConfigError(
            f"decisions={arguments.decisions.use}: cannot be fitted with {found.left_out[0]}; "
            f"make an ensemble of {', '.join(shown(run) for run in arguments.run)} instead"
        )
    mean = found.probabilities().mean(axis=0)
    return HeldOut(mean, found.targets, found.groups)


def with_decisions(
    batches: Iterator[PredictedBatch], decisions: Decisions | None
) -> Iterator[PredictedBatch]:
    """Yield the batches with the decisions applied to all images that could be read."""
    for batch in batches:
        if decisions is None:
            yield batch
            continue
        decided = torch.from_numpy(
            np.ascontiguousarray(decisions.apply(batch.probabilities.numpy()))
        )
        bad = list(batch.bad)
        decided[bad] = batch.probabilities[bad]
        yield replace(batch, probabilities=decided)
