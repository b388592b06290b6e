"""The Optuna study of a sweep: a lasting storage, and a mirror in memory for samplers and pruners.

Only the controller asks and tells, so SQLite is safe. A trial is drawn on the mirror and stored
whole, in one transaction, as RUNNING: a crash leaves a trial with all of its parameters, or none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from visionsweep.errors import UserError
from visionsweep.sweep._optuna import contains, trial_id
from visionsweep.sweep.samplers import MakeSampler
from visionsweep.sweep.storage import open_study_id
from visionsweep.sweep.trial_record import TrialRecord

_PRUNED_AT = "sweep:pruned_at"  # trial attribute: the step at which it was told to end
_STUDY_ATTRS = "sweep:study_attrs"  # trial attribute: what its sampler noted in the study
_NOTES = "sweep:notes"  # trial attribute: Notes

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass
class Notes:
    """What the sweep stores beside Optuna's own fields of a trial."""

    start: float | None = None  # time.time()
    end: float | None = None
    epochs: int | None = None
    retries: int = 0
    seed_values: list[Any] = field(default_factory=list)  # what each complete seed returned
    seed_epochs: list[int] = field(default_factory=list)  # how many epochs it took
    duplicate_of: int | None = None
    error: str | None = None


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
        suggest: Callable[[Trial], None],
        presets: Sequence[Mapping[str, Any]] = (),
        history: Sequence[FrozenTrial] = (),
    ) -> None:
        """Open or create the study.

        ``suggest`` draws the parameters of a trial. The first trials take ``presets``; what these
        leave out is drawn. ``history`` informs the sampler. Raises `UserError` if the study belongs
        to another sweep.
        """
        self._storage = storage
        self._make_sampler = make_sampler
        self._suggest = suggest
        self.presets = presets
        self._offset = len(history)
        ways = [StudyDirection[direction.upper()] for direction in directions]
        self._study_id = open_study_id(storage, name, ways, owner)
        self._memory = InMemoryStorage()
        self.mirror = optuna.create_study(
            storage=self._memory,
            study_name=name,
            directions=ways,
            sampler=make_sampler(0),
            pruner=pruner,
        )
        self._mirror_study_id = self._memory.get_study_id_from_name(name)
        for past in history:
            self.mirror.add_trial(past)
        self._ids: list[int] = []  # the storage's id of each trial
        self._notes: list[Notes] = []
        self._load()

    def _load(self) -> None:
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            if trial.number != len(self._ids):
                raise UserError(
                    f"the study lost trial {len(self._ids)}: something else changed its storage"
                )
            self._ids.append(trial_id(trial))
            self._notes.append(Notes(**trial.user_attrs.get(_NOTES, {})))
            self.mirror.add_trial(trial)
            for key, value in trial.system_attrs.get(_STUDY_ATTRS, {}).items():
                self._memory.set_study_system_attr(self._mirror_study_id, key, value)

    def __len__(self) -> int:
        return len(self._ids)

    def trial(self, number: int) -> FrozenTrial:
        """Return the trial as Optuna sees it; do not change it."""
        return self._memory.get_trial(self._mirror_id(number))

    def trials(self) -> list[FrozenTrial]:
        """Return every trial of the sweep, by number; do not change them."""
        return self.mirror.get_trials(deepcopy=False)[self._offset :]

    def notes(self, number: int) -> Notes:
        """Return the sweep's notes on a trial; `save_notes` stores a change."""
        return self._notes[number]

    def record(self, number: int) -> TrialRecord:
        """Return the trial as results and lines see it."""
        trial, notes = self.trial(number), self._notes[number]
        seed_values = tuple(v for v in notes.seed_values if isinstance(v, float))
        return TrialRecord(
            number=number,
            state=_STATES[trial.state],  # type: ignore[arg-type]
            values=None if trial.values is None else tuple(trial.values),
            params=trial.params,
            start=notes.start,
            end=notes.end,
            epochs=notes.epochs,
            directory=str(number if notes.duplicate_of is None else notes.duplicate_of),
            error=notes.error,
            duplicate_of=notes.duplicate_of,
            seed_values=seed_values if len(seed_values) > 1 else (),
            retries=notes.retries,
        )

    def running(self) -> list[int]:
        """Return the numbers of trials that have not ended."""
        return [n for n, trial in enumerate(self.trials()) if not trial.state.is_finished()]

    def ask(self) -> int:
        """Draw the next trial, store it as running, and return its number."""
        number = len(self._ids)
        self.mirror.sampler = self._make_sampler(number)
        if number < len(self.presets):
            self.mirror.enqueue_trial(dict(self.presets[number]))
        before = self._study_attrs()
        self._suggest(self.mirror.ask())
        mirror_id = self._mirror_id(number)
        new = {key: attr for key, attr in self._study_attrs().items() if before.get(key) != attr}
        if new:
            self._memory.set_trial_system_attr(mirror_id, _STUDY_ATTRS, new)
        drawn = self._memory.get_trial(mirror_id)
        template = create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=drawn.user_attrs,
            system_attrs=drawn.system_attrs,
        )
        self._ids.append(self._storage.create_new_trial(self._study_id, template))
        self._notes.append(Notes())
        if self._storage.get_trial_number_from_id(self._ids[-1]) != number:
            raise UserError(f"trial {number} is taken: something else writes to this study")
        return number

    def _study_attrs(self) -> dict[str, Any]:
        return dict(self._memory.get_study_system_attrs(self._mirror_study_id))

    def report(self, number: int, step: int, value: float, *, may_prune: bool) -> bool:
        """Store the objective reached by `step`; return whether to prune the trial.

        A report that is repeated (the trial died after it) gets the same answer.
        """
        mirror_id = self._mirror_id(number)
        before = dict(self._memory.get_trial_system_attrs(mirror_id))
        self._memory.set_trial_intermediate_value(mirror_id, step, value)
        is_pruned = before.get(_PRUNED_AT) == step
        if may_prune:
            is_pruned = self.mirror.pruner.prune(self.mirror, self.trial(number)) or is_pruned
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

    def pruned_at(self, number: int) -> int | None:
        """Return the step at which a trial was told to end, or None."""
        step: int | None = self.trial(number).system_attrs.get(_PRUNED_AT)
        return step

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial with its values, one per objective."""
        self._end(number, TrialState.COMPLETE, list(values))

    def prune(self, number: int, value: float | None = None) -> None:
        """End a trial as pruned, with `value` or the last one that it reported."""
        steps = self.trial(number).intermediate_values
        if value is None and steps and len(self.mirror.directions) == 1:
            value = steps[max(steps)]
        self._end(number, TrialState.PRUNED, None if value is None else [value])

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
            if value not in (None, [])
        }
        self._storage.set_trial_user_attr(self._ids[number], _NOTES, notes)

    def _mirror_id(self, number: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(
            self._mirror_study_id, number + self._offset
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
