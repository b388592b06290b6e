"""Pruning a trial of several objectives, which Optuna refuses (optuna/optuna#3450).

A pruner compares one value. It sees a view of the study in which the first objective is the only
one, so it decides as in a study of that objective alone. With ``prune_by=dominated`` its decision
holds only if another trial dominates this one at the same step: is as good in every objective, and
better in one (the Pareto order). What others reach at later steps says nothing about this one.
"""

import copy
import math
from collections.abc import Container, Sequence
from typing import Any, cast

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from visionsweep.sweep.ranking import dominates
from visionsweep.sweep.settings import PruneBy, SweepSettings

_OTHERS = "sweep:others_at_"  # trial attributes: the further objectives at each step


def pruning_rule(settings: SweepSettings, metric: str | None) -> str | None:
    """Return when trials are pruned, in a line; None with one objective, or without a pruner.

    ``metric``: the name of the first objective.
    """
    if len(settings.directions) == 1 or settings.pruner_name == "NopPruner":
        return None
    first = "the first" if metric is None else f"the first, {metric}"
    more = ", and dominated in all of them at the same epoch"
    return (
        f"{len(settings.directions)} objectives: {settings.pruner_name} ends a trial that is "
        f"losing in {first}{more if settings.prune_by == 'dominated' else ''} "
        f"(hydra.sweeper.prune_by={settings.prune_by})"
    )


class SeveralObjectives(optuna.Study):
    """The study as samplers see it.

    Optuna's TPE ranks pruned trials by the direction of the only objective; here, of the first one.
    """

    @property
    def direction(self) -> StudyDirection:
        """The direction of the first objective; Optuna raises an error if there are several."""
        return self.directions[0]


def sampled_study(
    name: str, storage: InMemoryStorage, sampler: BaseSampler, pruner: BasePruner
) -> optuna.Study:
    """Return a study of `storage` as samplers see it.

    With several objectives all brackets of Hyperband are one: Optuna's view of a bracket knows no
    direction.
    """
    study = optuna.Study(name, storage, sampler, pruner)
    if len(study.directions) == 1:
        return study
    return SeveralObjectives(name, storage, sampler, NopPruner())


class Pruning:
    """Decides whether trials of a study end early."""

    def __init__(self, study: optuna.Study, storage: InMemoryStorage, pruner: BasePruner) -> None:
        """``study``: as samplers see it, in `storage`."""
        self._study, self._pruner = study, pruner
        self._directions = [direction.name.lower() for direction in study.directions]
        self._view = study
        if len(self._directions) > 1:
            view = cast(BaseStorage, _FirstObjective(storage))
            self._view = optuna.Study(study.study_name, view, pruner=pruner)

    def ends(self, trial: FrozenTrial, step: int, prune_by: PruneBy) -> bool:
        """Return whether to prune a trial that has just reported `step`."""
        is_losing = self._pruner.prune(self._view, trial)
        return is_losing and (prune_by == "first_objective" or self._is_dominated(trial, step))

    def _is_dominated(self, trial: FrozenTrial, step: int) -> bool:
        own = values_at(trial, step)
        if own is None:
            return False
        others = (
            values_at(other, step)
            for other in self._study.get_trials(deepcopy=False)
            if other.number != trial.number and other.state != TrialState.FAIL
        )
        return any(
            dominates(values, own, self._directions) for values in others if values is not None
        )


def others_attribute(step: int, others: Sequence[float]) -> tuple[str, list[float | None]]:
    """Return the trial attribute that holds the further objectives at a step; null: unknown."""
    return f"{_OTHERS}{step}", [value if math.isfinite(value) else None for value in others]


def values_at(trial: FrozenTrial, step: int) -> list[float] | None:
    """Return all objectives that a trial reported at a step; None if one of them is unknown."""
    others = trial.system_attrs.get(f"{_OTHERS}{step}", [None])
    if step not in trial.intermediate_values or None in others:
        return None
    return [trial.intermediate_values[step], *others]


class _FirstObjective:
    """A storage that shows the first objective of each study and trial as the only one."""

    def __init__(self, storage: InMemoryStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._storage.get_study_directions(study_id)[:1]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [_with_first(trial) for trial in trials]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return _with_first(self._storage.get_trial(trial_id))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return BaseStorage.get_best_trial(cast(BaseStorage, self), study_id)


def _with_first(trial: FrozenTrial) -> FrozenTrial:
    if trial.values is None:
        return trial
    trial = copy.copy(trial)
    trial.values = trial.values[:1]
    return trial
