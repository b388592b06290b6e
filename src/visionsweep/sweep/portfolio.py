"""`hydra.sweeper.portfolio`: what did well on other data sets, which a new sweep tries first.

`portfolio.yaml` holds the scores of the same configurations on several data sets, as
`benchmarks/learn_portfolio.py` found them. Of those that its space can express, a sweep tries some
in the greedy order of Auto-sklearn 2.0 (Feurer et al. 2022, arXiv 2007.04074).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visionsweep.sweep.settings import DEFAULT_TRIALS, SweepSettings
from visionsweep.sweep.space import zips
from visionsweep.sweep.space.dimensions import nearest
from visionsweep.sweep.space.space import SearchSpace
from visionsweep.sweep.space.zip_names import expand
from visionsweep.text import counted

FILE = Path(__file__).with_suffix(".yaml")
MAX_CONFIGURATIONS = 6
MAX_SHARE = 3  # of n_trials, at most one in so many: most trials are the sampler's
MIN_KEYS = 2  # of a configuration; one parameter alone says little of what goes together

# They draw the same whatever is tried first: a baseline, or every configuration there is.
_SEES_NO_RESULTS = ("GridSampler", "RandomSampler", "QMCSampler", "BruteForceSampler")


@dataclass(frozen=True)
class Family:
    """Configurations of the same networks, with their scores (more is better) per data set."""

    applies_to: dict[str, Any]  # dotted keys of the config, and their values
    same: tuple[str, ...]  # config groups without whose choice the other parameters mean nothing
    configurations: list[dict[str, Any]]
    scores: list[list[float]]  # by configuration, then data set


@functools.cache
def families() -> tuple[Family, ...]:
    """Return the families of networks in `portfolio.yaml`."""
    return tuple(
        Family(
            node["applies_to"],
            tuple(node["same"]),
            [row["params"] for row in node["configurations"]],
            [row["scores"] for row in node["configurations"]],
        )
        for node in yaml.safe_load(FILE.read_text(encoding="utf-8"))
    )


def first_configurations(
    settings: SweepSettings,
    space: SearchSpace,
    value_of: Callable[[str], Any],
    known: Sequence[Family] | None = None,
) -> list[dict[str, Any]]:
    """Return what a new sweep tries first, each reduced to what the space searches.

    Empty if the network is not in the portfolio, or something else comes first. ``value_of``
    returns a value of the sweep's fixed config. ``known``: instead of those of `portfolio.yaml`.
    """
    sampler = str(settings.sampler.get("_target_", "")).rpartition(".")[2]
    has_other_start = settings.enqueue or settings.warm_start or settings.confirm
    if settings.portfolio == "none" or has_other_start or sampler in _SEES_NO_RESULTS:
        return []
    most = min(MAX_CONFIGURATIONS, (settings.n_trials or DEFAULT_TRIALS) // MAX_SHARE)
    for family in families() if known is None else known:
        if all(
            key.partition(".")[0] not in space.searched_keys and value_of(key) == value
            for key, value in family.applies_to.items()
        ):
            return _best(family, space, value_of)[:most]
    return []


def _best(
    family: Family, space: SearchSpace, value_of: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Return the configurations that the space can express, reduced to it, best first."""
    fixed = {
        group: value_of(f"hydra.runtime.choices.{group}")
        for group in family.same
        if group not in space.searched_keys
    }
    pairs = [
        (found, scores)
        for params, scores in zip(family.configurations, family.scores, strict=True)
        if len(found := reduced(params, space)) >= MIN_KEYS
        if all(params[group] == (found | fixed).get(group) for group in family.same)
    ]
    ordered = [pairs[i][0] for i in greedy_order([scores for _, scores in pairs])]
    return [found for i, found in enumerate(ordered) if found not in ordered[:i]]


def reduced(params: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Return those of `params` that the space searches, as near as its ranges allow.

    A choice that the space lacks is left out, and so is what depends on one.
    """
    found: dict[str, Any] = {}
    for dimension in space.dimensions:
        given = zips.collapse(dimension, params) if dimension.is_zip else params
        if dimension.key in given and dimension.is_active(found):
            value = nearest(dimension.distribution, given[dimension.key])
            if value is not None:
                found[dimension.key] = value
    return expand(found)


def greedy_order(scores: Sequence[Sequence[float]]) -> list[int]:
    """Return rows of `scores` in an order whose every beginning is a good portfolio.

    Next comes the row that most lowers the mean regret over the columns: by how much the best so
    far is behind the best of all rows, as a share of what lies between the best and the worst one.
    The order ends where no row is the best so far in any column.
    """
    columns = list(zip(*scores, strict=True))
    spans = [(max(column), max(column) - min(column) or 1.0) for column in columns]
    regrets = [
        [(best - score) / span for score, (best, span) in zip(row, spans, strict=True)]
        for row in scores
    ]
    reached = [1.0] * len(columns)
    left, order = list(range(len(scores))), []
    while left:
        totals = {row: sum(map(min, reached, regrets[row])) for row in left}
        chosen = min(left, key=lambda row: totals[row])
        if totals[chosen] >= sum(reached):
            break
        left.remove(chosen)
        order.append(chosen)
        reached = list(map(min, reached, regrets[chosen]))
    return order


def portfolio_rule(portfolio: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a line that says what a sweep tries first; None if that is nothing in particular."""
    if not portfolio:
        return None
    return (
        f"comes first: {counted(len(portfolio), 'configuration')} that did well on other small "
        "data sets (hydra.sweeper.portfolio=none leaves them out)"
    )
