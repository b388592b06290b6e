"""Helpers of the search space's tests."""

import itertools
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import settings
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution

from visionsweep.sweep.space.space import SearchSpace, parse_space

optuna.logging.set_verbosity(optuna.logging.WARNING)

SOME = settings(max_examples=25, deadline=None)  # Hydra's parser is slow

CONDITIONAL = {
    "loss.gamma": {"space": "choice(0.5,1,2)", "when": "loss=focal,poly"},  # before its parent
    "loss": "choice(focal,ce,poly)",
    "optim": "sgd,adam",
    "optim.nesterov": {"space": "choice(true,false)", "when": ["optim=sgd"]},
    "optim.momentum": {
        "space": "choice(0.8,0.9)",
        "when": ["optim=sgd", "optim.nesterov=true", "loss=ce,poly"],
    },
    "warm": {"space": 5, "when": "optim.momentum=0.9"},
    "n": "range(2)",
}
ORDER = ["loss", "loss.gamma", "optim", "optim.nesterov", "optim.momentum", "warm", "n"]


def is_active(key: str, p: dict[str, Any]) -> bool:
    """Return whether `key` is active in CONDITIONAL, written in Python."""
    nesterov = p["optim"] == "sgd"
    momentum = nesterov and p["optim.nesterov"] is True and p["loss"] in ("ce", "poly")
    return {
        "loss.gamma": p["loss"] in ("focal", "poly"),
        "optim.nesterov": nesterov,
        "optim.momentum": momentum,
        "warm": momentum and p["optim.momentum"] == 0.9,
    }.get(key, True)


def all_active() -> list[dict[str, Any]]:
    losses, gammas = ["focal", "ce", "poly"], [0.5, 1, 2]
    columns = [losses, gammas, ["sgd", "adam"], [True, False], [0.8, 0.9], [5], [0, 1]]
    found: list[dict[str, Any]] = []
    for row in itertools.product(*columns):
        full = dict(zip(ORDER, row, strict=True))
        kept = {key: value for key, value in full.items() if is_active(key, full)}
        if kept not in found:
            found.append(kept)
    return found


def conditional() -> SearchSpace:
    return parse_space(OmegaConf.create(CONDITIONAL), None, [])


def trials(count: int, seed: int = 0) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask() for _ in range(count)]


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    return {dimension.key: dimension.distribution for dimension in space.dimensions}


def typed(value: Any) -> Any:
    """Return a value with its type: 1, 1.0 and True are equal in Python."""
    return (type(value).__name__, repr(value))


def read(override: str) -> Any:
    """Return what a job reads of an override."""
    parsed = OverridesParser.create().parse_override(override)
    assert not parsed.is_sweep_override(), override
    return parsed.value()
