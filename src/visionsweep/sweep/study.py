"""The Optuna study of a sweep: a lasting storage, and a mirror in memory for samplers and pruners.

Only the controller asks and tells, so SQLite is safe. A trial is drawn on the mirror and stored
whole, in one transaction, as RUNNING: a crash leaves a trial with all of its parameters, or none.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from visionsweep.errors import ConfigError, UserError
from visionsweep.sweep._optuna import FIXED_PARAMS, contains, reopen, trial_id
from visionsweep.sweep.repeats import fit
from visionsweep.sweep.samplers import MakeSampler
from visionsweep.sweep.settings import PruneBy
from visionsweep.sweep.several_objectives import (
    Pruning,
    others_attribute,
    sampled_study,
    values_at,
)
from visionsweep.sweep.space.zip_names import expand
from visionsweep.sweep.storage import PatientStorage, open_study_id
from visionsweep.sweep.trial_record import TrialRecord

_PRUNED_AT = "sweep:pruned_at"  # trial attribute: the step at which it was told to end
_STUDY_ATTRS = "sweep:study_attrs"  # trial attribute: what its sampler noted in the study
NOTES = "sweep:notes"  # trial attribute: Notes

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


@dataclass
class Notes:
    """What the sweep stores beside Optuna's own fields of a trial."""

    start: float | None = None  # time.time()
    end: float | None = None
    seconds: float | None = None  # that its runs took, without pauses
    epochs: int | None = None
    retries: int = 0
    seed_values: list[Any] = field(default_factory=list)  # of each complete seed
    fold_values: list[Any] = field(default_factory=list)  # of each complete fold, seed by seed
    seed_epochs: list[int] = field(default_factory=list)  # how many epochs each run took
    duplicate_of: int | None = None
    error: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)  # what the task attached

    @property
    def num_runs(self) -> int:
        """The number of complete runs."""
        return len(self.fold_values or self.seed_values)


class SweepStudy:
    """Asks, records reports and tells, in the storage and the mirror alike.

    Numbers are those of trials, from 0.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        directions: Sequence[str],
        *,
        owner: str,
        make_sampler: MakeSampler,
        pruner: BasePruner,
        prune_by: PruneBy = "first_objective",
        suggest: Callable[[Trial], None],
        check: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
        presets: Sequence[Mapping[str, Any]] = (),
        race_seeds: int | None = None,
        history: Sequence[FrozenTrial] = (),
        distributions: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        """Open or create the study.

        ``suggest`` draws the parameters of a trial. The first trials take ``presets``; what these
        leave out is drawn. ``check`` converts the parameters of a trial that was enqueued with
        Optuna, or raises `ConfigError`. ``race_seeds``: how many seeds a contender may get; None:
        all trials get all. ``history`` informs the sampler. ``distributions`` are those of the
        space, which may be wider than when the first trials were drawn. Raises `UserError` if the
        study belongs to another sweep.
        """
        self._storage = storage
        self._make_sampler = make_sampler
        self._suggest = suggest
        self._check = check
        self.presets = presets
        self._history = history
        self._race_seeds = race_seeds
        self._distributions = distributions or {}
        self._name, self._pruner, self._prune_by = name, pruner, prune_by
        ways = [StudyDirection[direction.upper()] for direction in directions]
        self._directions = ways
        self._study_id = open_study_id(storage, name, ways, owner)
        self._ids: list[int] = []  # the storage's id of each trial
        self._notes: list[Notes] = []
        self._waiting: set[int] = set()  # numbers of trials that were enqueued with Optuna
        self._num_found = 0  # trials that something else added since
        self._load()

    def _load(self) -> None:
        """Make the mirror anew from the storage."""
        self._memory = InMemoryStorage()
        self._mirror_study_id = self._memory.create_new_study(self._directions, self._name)
        sampler = self._make_sampler(0)
        self.mirror = sampled_study(self._name, self._memory, sampler, self._pruner)
        self._pruning = Pruning(self.mirror, self._memory, self._pruner)
        for past in self._history:
            self.mirror.add_trial(past)
        self._waiting.clear()
        for number, trial in enumerate(
            self._storage.get_all_trials(self._study_id, deepcopy=False)
        ):
            if trial.number != number:
                raise UserError(
                    f"the study lost trial {number}: something else changed its storage"
                )
            if number == len(self._ids):
                self._ids.append(trial_id(trial))
                self._notes.append(Notes(**trial.user_attrs.get(NOTES, {})))
            if _is_undrawn(trial):
                self._waiting.add(number)
                trial = copy.copy(trial)
                trial.state = TrialState.WAITING
            self.mirror.add_trial(_as_drawn_from(self._distributions, trial))
            for key, value in trial.system_attrs.get(_STUDY_ATTRS, {}).items():
                self._memory.set_study_system_attr(self._mirror_study_id, key, value)

    def look_for_enqueued(self) -> bool:
        """Read the study again if something else added trials to it; return whether some wait."""
        known = len(self._ids)
        stored = self._storage.get_all_trials(self._study_id, deepcopy=False)
        for trial in stored[known:]:
            if trial.state == TrialState.RUNNING and not _is_undrawn(trial):
                raise UserError(
                    f"trial {trial.number} is taken: something else writes to this study"
                )
        if len(stored) > known:
            self._load()
            self._num_found += len(self._ids) - known
        return bool(self._waiting)

    @property
    def has_enqueued(self) -> bool:
        """Whether a trial that was enqueued with Optuna waits."""
        return bool(self._waiting)

    def reopen_failed(self) -> list[int]:
        """Make failed trials running ones again, as if never started; return their numbers."""
        numbers = [n for n, trial in enumerate(self.trials()) if trial.state == TrialState.FAIL]
        for number in numbers:
            self._reopen(number, _PRUNED_AT)
        if numbers:
            self._load()
        for number in numbers:
            notes = self._notes[number]
            self._notes[number] = Notes(
                seed_values=notes.seed_values,
                fold_values=notes.fold_values,
                seed_epochs=notes.seed_epochs,
            )
            self.save_notes(number)
        return numbers

    def attribute(self, key: str) -> Any:
        """Return what `set_attribute` stored with the study; None without it."""
        return self._storage.get_study_user_attrs(self._study_id).get(key)

    def set_attribute(self, key: str, value: Any) -> None:
        """Store a value of JSON with the study."""
        self._storage.set_study_user_attr(self._study_id, key, value)

    def _reopen(self, number: int, forget: str | None) -> None:
        where = self._study_id, self._ids[number], forget
        if isinstance(self._storage, PatientStorage):
            self._storage.reopen(*where)
        else:
            reopen(self._storage, *where)

    def __len__(self) -> int:
        return len(self._ids)

    def trial(self, number: int) -> FrozenTrial:
        """Return the trial as Optuna sees it; do not change it."""
        return self._memory.get_trial(self._mirror_id(number))

    def params(self, number: int) -> dict[str, Any]:
        """Return the parameters of a trial, those of a zip by its keys."""
        return expand(self.trial(number).params)

    def trials(self) -> list[FrozenTrial]:
        """Return every trial of the sweep, by number; do not change them."""
        return self.mirror.get_trials(deepcopy=False)[len(self._history) :]

    def notes(self, number: int) -> Notes:
        """Return the sweep's notes on a trial; `save_notes` stores a change."""
        return self._notes[number]

    def record(self, number: int) -> TrialRecord:
        """Return the trial as results and lines see it."""
        trial, notes = self.trial(number), self._notes[number]
        seed_values, fold_values = (
            tuple(v for v in values if isinstance(v, float))
            for values in (notes.seed_values, notes.fold_values)
        )
        values, num_seeds = trial.values, len(seed_values)
        if notes.duplicate_of is not None:
            num_seeds = len(self._notes[notes.duplicate_of].seed_values)
            values = self.trial(notes.duplicate_of).values or values  # over more seeds by now
        is_several = len(seed_values) > 1 or self._race_seeds is not None
        return TrialRecord(
            number=number,
            state=_STATES[trial.state],  # type: ignore[arg-type]
            values=None if values is None else tuple(values),
            params=expand(trial.params),
            start=notes.start,
            end=notes.end,
            seconds=notes.seconds,
            epochs=notes.epochs,
            directory=str(number if notes.duplicate_of is None else notes.duplicate_of),
            error=notes.error,
            duplicate_of=notes.duplicate_of,
            seed_values=seed_values if is_several else (),
            has_all_seeds=num_seeds >= (self._race_seeds or 0),
            fold_values=fold_values,
            retries=notes.retries,
            attributes=notes.attributes,
        )

    def seed_values(self, first: int = 0) -> dict[int, list[float]]:
        """Return the value of each complete seed of the trials that may be the best.

        ``first``: the number of the first trial that counts.
        """
        alive = TrialState.COMPLETE, TrialState.RUNNING
        return {
            number: self._notes[number].seed_values
            for number, trial in enumerate(self.trials())
            if number >= first and trial.state in alive and self._notes[number].seed_values
        }

    def begin_seed(self, number: int) -> None:
        """Make a complete trial a running one, for its next seed; its reports stay."""
        self._reopen(number, None)
        reopen(self._memory, self._mirror_study_id, self._mirror_id(number), None)

    def running(self) -> list[int]:
        """Return the numbers of trials that were drawn and have not ended."""
        return [n for n, trial in enumerate(self.trials()) if trial.state == TrialState.RUNNING]

    def ask(self, forecasts: Mapping[int, float] | None = None) -> int:
        """Draw the next trial, store it as running, and return its number.

        First those that were enqueued with Optuna; one that does not fit the space fails at once.
        ``forecasts``: what the sampler takes for the values of paused trials, by number; without
        one it takes them for bad, like all that are running.
        """
        if self.look_for_enqueued():
            return self._ask_enqueued(min(self._waiting))
        number = len(self._ids)
        forecasts = {**self._values_with_first_seed(), **(forecasts or {})}
        if number - self._num_found < len(self.presets):
            self.mirror.enqueue_trial(dict(self.presets[number - self._num_found]))
            drawn = self._draw(number)
        elif forecasts:
            drawn = self._draw_with(number, forecasts)
        else:
            drawn = self._draw(number)
        template = create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=drawn.user_attrs,
            system_attrs=drawn.system_attrs,
        )
        stored = self._storage.create_new_trial(self._study_id, template)
        if self._storage.get_trial_number_from_id(stored) != number:  # enqueued at this moment
            self._load()
            self._num_found += len(self._ids) - number - 1
            return self._ids.index(stored)
        self._ids.append(stored)
        self._notes.append(Notes())
        return number

    def _values_with_first_seed(self) -> dict[int, float]:
        """Return what the sampler takes for the values of trials that have several seeds.

        A seed may do the same to all trials, so means over different seeds cannot be compared.
        """
        values = {} if self._race_seeds is None else self.seed_values()
        if all(len(seeds) < 2 for seeds in values.values()):
            return {}
        found = fit(values)
        return dict(zip(found.numbers, found.estimates.tolist(), strict=True))

    def _draw(self, number: int) -> FrozenTrial:
        """Draw a trial on the mirror, with what the sampler noted in the study meanwhile."""
        self.mirror.sampler = self._make_sampler(number)
        before = self._study_attrs()
        self._suggest(self.mirror.ask())
        return self._with_study_attrs(number, before, self._study_attrs())

    def _draw_with(self, number: int, forecasts: Mapping[int, float]) -> FrozenTrial:
        """Draw a trial on a copy of the mirror, in which paused trials have their forecasts."""
        memory = InMemoryStorage()
        study_id = memory.create_new_study(self._directions, self._name)
        study = sampled_study(self._name, memory, self._make_sampler(number), self._pruner)
        before = self._study_attrs()
        for key, attr in before.items():
            memory.set_study_system_attr(study_id, key, attr)
        for past in self.mirror.get_trials(deepcopy=False):
            value = forecasts.get(past.number - len(self._history))
            study.add_trial(past if value is None else _with_value(past, value))
        self._suggest(study.ask())
        drawn = study.get_trials(deepcopy=False)[-1]
        self.mirror.add_trial(drawn)
        after = memory.get_study_system_attrs(study_id)
        for key, attr in after.items():
            self._memory.set_study_system_attr(self._mirror_study_id, key, attr)
        return self._with_study_attrs(number, before, after)

    def _with_study_attrs(
        self, number: int, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> FrozenTrial:
        """Note in a trial what its sampler noted in the study; return the trial."""
        new = {key: attr for key, attr in after.items() if before.get(key) != attr}
        if new:
            self._memory.set_trial_system_attr(self._mirror_id(number), _STUDY_ATTRS, new)
        return self.trial(number)

    def _ask_enqueued(self, number: int) -> int:
        self._waiting.remove(number)
        mirror_id, stored_id = self._mirror_id(number), self._ids[number]
        given = self.trial(number).system_attrs.get(FIXED_PARAMS, {})
        try:
            checked = self._check(given)
        except ConfigError as error:
            self._notes[number].error = str(error)
            self.fail(number)
            return number
        self._memory.set_trial_system_attr(mirror_id, FIXED_PARAMS, dict(checked))
        drawn = self._draw(number)
        for key, value in drawn.params.items():
            distribution = drawn.distributions[key]
            internal = distribution.to_internal_repr(value)
            self._storage.set_trial_param(stored_id, key, internal, distribution)
        for key, value in drawn.user_attrs.items():
            self._storage.set_trial_user_attr(stored_id, key, value)
        for key, value in drawn.system_attrs.items():
            self._storage.set_trial_system_attr(stored_id, key, value)
        self._storage.set_trial_state_values(stored_id, TrialState.RUNNING)
        return number

    def _study_attrs(self) -> dict[str, Any]:
        return dict(self._memory.get_study_system_attrs(self._mirror_study_id))

    def report(
        self,
        number: int,
        step: int,
        value: float,
        *,
        others: Sequence[float] = (),
        may_prune: bool,
    ) -> bool:
        """Store the objectives reached by `step`; return whether to prune the trial.

        ``others``: all but the first, if the trial reported them. A report that is repeated (the
        trial died after it) gets the same answer.
        """
        mirror_id = self._mirror_id(number)
        before = dict(self._memory.get_trial_system_attrs(mirror_id))
        self._memory.set_trial_intermediate_value(mirror_id, step, value)
        if others:
            self._memory.set_trial_system_attr(mirror_id, *others_attribute(step, others))
        is_pruned = before.get(_PRUNED_AT) == step
        if may_prune:
            is_pruned = self._pruning.ends(self.trial(number), step, self._prune_by) or is_pruned
        # The decision is stored first: pruners note that a rung was reached, and would let a trial
        # pass that reports it again.
        if is_pruned:
            self._memory.set_trial_system_attr(mirror_id, _PRUNED_AT, step)
            self._storage.set_trial_system_attr(self._ids[number], _PRUNED_AT, step)
        self._storage.set_trial_intermediate_value(self._ids[number], step, value)
        for key, attr in self._memory.get_trial_system_attrs(mirror_id).items():
            if before.get(key) != attr and key != _PRUNED_AT:
                self._storage.set_trial_system_attr(self._ids[number], key, attr)
        return is_pruned

    def set_attributes(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Store what the task attached to a trial, as Optuna user attributes too."""
        for key, value in attributes.items():
            self._notes[number].attributes[key] = value
            self._memory.set_trial_user_attr(self._mirror_id(number), key, value)
            self._storage.set_trial_user_attr(self._ids[number], key, value)
        self.save_notes(number)

    def pruned_at(self, number: int) -> int | None:
        """Return the step at which a trial was told to end, or None."""
        step: int | None = self.trial(number).system_attrs.get(_PRUNED_AT)
        return step

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial with its values, one per objective."""
        folds = self.record(number)
        if folds.fold_values:  # what the folds reached beside the value, for Optuna's own tools
            attributes = {"fold_values": list(folds.fold_values), "fold_mean": folds.fold_mean}
            for key, value in attributes.items():
                self._storage.set_trial_user_attr(self._ids[number], key, value)
        self._end(number, TrialState.COMPLETE, list(values))

    def prune(self, number: int, values: Sequence[float] | None = None) -> None:
        """End a trial as pruned, with `values` or those that it reported last."""
        if values is None:
            values = self._last_values(number)
        self._end(number, TrialState.PRUNED, None if values is None else list(values))

    def _last_values(self, number: int) -> list[float] | None:
        """Return the objectives that a trial reported last; None if one of them is unknown."""
        trial = self.trial(number)
        step = trial.last_step
        if step is None:
            return None
        if len(self._directions) > 1:
            return values_at(trial, step)
        return [trial.intermediate_values[step]]

    def fail(self, number: int) -> None:
        """End a trial as failed."""
        self._end(number, TrialState.FAIL, None)

    def _end(self, number: int, state: TrialState, values: list[float] | None) -> None:
        self.save_notes(number)
        self.mirror.sampler.after_trial(self.mirror, self.trial(number), state, values)
        self._storage.set_trial_state_values(self._ids[number], state, values)
        self._memory.set_trial_state_values(self._mirror_id(number), state, values)

    def save_notes(self, number: int) -> None:
        """Store the notes on a trial."""
        notes = {
            key: value
            for key, value in vars(self._notes[number]).items()
            if value not in (None, [], {})
        }
        self._storage.set_trial_user_attr(self._ids[number], NOTES, notes)

    def _mirror_id(self, number: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(
            self._mirror_study_id, number + len(self._history)
        )


def _as_drawn_from(
    distributions: Mapping[str, BaseDistribution], trial: FrozenTrial
) -> FrozenTrial:
    """Return a trial as if it had been drawn from `distributions`, as far as they allow it.

    Optuna's TPE with `group` keeps to the distributions of the first trials: of a range that was
    widened, it would never draw from the new part.
    """
    changed = {
        key: now
        for key, now in distributions.items()
        if key in trial.params and now != trial.distributions[key]
        if _is_compatible(now, trial.distributions[key]) and contains(now, trial.params[key])
    }
    if changed:
        trial = copy.copy(trial)
        trial.distributions = {**trial.distributions, **changed}
    return trial


def _is_compatible(one: BaseDistribution, other: BaseDistribution) -> bool:
    try:
        check_distribution_compatibility(one, other)
    except ValueError:
        return False
    return True


def _with_value(trial: FrozenTrial, value: float) -> FrozenTrial:
    trial = copy.copy(trial)
    trial.state, trial.values = TrialState.COMPLETE, [value]
    trial.datetime_complete = datetime.now()
    return trial


def _is_undrawn(trial: FrozenTrial) -> bool:
    """Return whether a trial was put into the study by something else, to be run."""
    return trial.state == TrialState.WAITING or (
        trial.state == TrialState.RUNNING and not trial.params
    )


def past_trials(
    params_and_values: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
    distributions: Mapping[str, BaseDistribution],
) -> list[FrozenTrial]:
    """Return the trials of an earlier study that fit this study's space, as complete ones."""
    return [
        create_trial(
            params=dict(params),
            distributions={key: distributions[key] for key in params},
            values=list(values),
        )
        for params, values in params_and_values
        if all(k in distributions and contains(distributions[k], v) for k, v in params.items())
    ]
