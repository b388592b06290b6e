"""Members whose weights a sweep has removed: which of them an ensemble would need."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.members import Member
from visionsweep.answer.objectives import pooled_objectives
from visionsweep.errors import DataError

_MAX_NAMED = 3


def with_weights(members: Sequence[Member]) -> list[int]:
    """Return the members that can be in an ensemble. Raises `DataError` if there is none."""
    kept = [index for index, member in enumerate(members) if not member.without_weights]
    if not kept:
        raise DataError(
            f"ensemble: no best.pt is left, e.g. in {members[0].without_weights[0]}; a sweep keeps "
            "those of its best trials (hydra.sweeper.keep_checkpoints), so train them again"
        )
    return kept


def missed_line(members: Sequence[Member], weights: NDArray[np.float64]) -> str | None:
    """Return the line about members without weights that have a share in ``weights`` (M,).

    None if there are none: all that the best ensemble needs is there.
    """
    missed = [
        member
        for member, weight in zip(members, weights, strict=True)
        if weight > 0 and member.without_weights
    ]
    if not missed:
        return None
    names = ", ".join(member.name for member in missed[:_MAX_NAMED])
    more = f" and {len(missed) - _MAX_NAMED} more" if len(missed) > _MAX_NAMED else ""
    ranks = _ranks(members)
    keep = max(ranks[member.runs[0].trial] for member in missed)
    return (
        f"best.pt is gone of {names}{more}, which the best ensemble of all "
        f"{len(members)} would use; hydra.sweeper.keep_checkpoints={keep} would have kept "
        f"{'them' if len(missed) > 1 else 'it'}. Chosen among the others"
    )


def _ranks(members: Iterable[Member]) -> dict[Path, int]:
    """Return the rank of each trial in its sweep, from 1, by the value that the sweep ranks by."""
    costs: dict[Path, dict[Path, list[float]]] = {}  # per sweep and trial: that of each seed
    for member in members:
        trial = member.runs[0].trial
        costs.setdefault(trial.parent, {}).setdefault(trial, []).append(_cost(member))
    ranks: dict[Path, int] = {}
    for of_sweep in costs.values():
        order = sorted(of_sweep, key=lambda trial: fmean(of_sweep[trial]))
        ranks |= {trial: rank for rank, trial in enumerate(order, start=1)}
    return ranks


def _cost(member: Member) -> float:
    """Return the objective, of folds the pooled one, such that less is better."""
    objective = member.runs[0].result["objective"]
    value = objective["value"]
    if member.is_folds:
        value = pooled_objectives([run.directory for run in member.runs])[0].value
    if value is None or math.isnan(value):
        return math.inf  # a sweep never keeps it
    return float(-value if objective["direction"] == "maximize" else value)
