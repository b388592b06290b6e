"""One trial of a rival, trained by our training function, so that an epoch costs the same.

The function reports the best validation F1 so far after each epoch, to rivals as to our sweeps.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hydra
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

import visionsweep.config.schema  # noqa: F401 - registers the schema
from visionsweep.run import run
from visionsweep.sweep.space.grammar import distribution_of, parse
from visionsweep.sweep.trial import NoTrial, set_current_trial

Report = Callable[[float, int], bool]  # F1, epoch; returns whether to raise TrialPruned
Space = Mapping[str, CategoricalDistribution | FloatDistribution]


class _Trial(NoTrial):
    """A trial for our training function, so that it keeps decoded images for the next one."""

    def __init__(self, number: int, report: Report) -> None:
        self.number, self._report = number, report

    def report(self, value: Any, step: int) -> bool:
        """Pass on the F1 of an epoch."""
        return self._report(value, step)


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], Space]:
    """Return the plain overrides, and what the others draw from."""
    fixed, space = [], {}
    for override in map(parse, overrides):
        found = distribution_of(override) if override.is_sweep_override() else None
        if found is None:
            fixed.append(str(override.input_line))
        else:
            assert isinstance(found, CategoricalDistribution | FloatDistribution)
            space[override.get_key_element()] = found
    return fixed, space


def suggest(trial: optuna.Trial, space: Space) -> None:
    """Draw each parameter, as Optuna's documentation does."""
    for key, found in space.items():
        if isinstance(found, FloatDistribution):
            trial.suggest_float(key, found.low, found.high, log=found.log)
        else:
            trial.suggest_categorical(key, found.choices)


def train(
    fixed: Sequence[str], params: Mapping[str, Any], number: int, report: Report
) -> float | tuple[float, ...]:
    """Train a configuration in `outputs/NUMBER`; return its best F1.

    Raises `TrialPruned` if `report` says so, `TrainingError` if the loss is not finite.
    """
    overrides = [*fixed, *(f"{key}={value}" for key, value in params.items()), f"name={number}"]
    set_current_trial(_Trial(number, report))
    return run(_compose(tuple(overrides)))


def _compose(overrides: tuple[str, ...]) -> Any:
    _initialize()
    return hydra.compose("config", list(overrides))


@functools.cache
def _initialize() -> None:
    hydra.initialize_config_module("visionsweep.conf")
