"""Members whose weights a sweep has removed: which of them an ensemble would need."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.members import Member
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
    keep = max(ranks[members.index(member)] for member in missed)
    return (
        f"best.pt is gone of {names}{more}, which the best ensemble of all "
        f"{len(members)} would use; hydra.sweeper.keep_checkpoints={keep} would have kept "
        f"{'them' if len(missed) > 1 else 'it'}. Chosen among the others"
    )


def _ranks(members: Sequence[Member]) -> list[int]:
    """Return the rank of each member by its objective, from 1, as a sweep keeps weights by it."""
    signs = [
        -1 if member.runs[0].result["objective"]["direction"] == "maximize" else 1
        for member in members
    ]
    costs = [sign * _value(member) for sign, member in zip(signs, members, strict=True)]
    order = np.argsort(costs, kind="stable")
    ranks = np.empty(len(members), dtype=np.int64)
    ranks[order] = np.arange(1, len(members) + 1)
    return [int(rank) for rank in ranks]


def _value(member: Member) -> float:
    values = [run.result["objective"]["value"] for run in member.runs]
    return float(np.mean([np.nan if value is None else value for value in values]))
