"""The Optuna study of a sweep: a storage that lasts, and a mirror in memory that samplers and pruners look at.

Only the controller asks and tells, so SQLite is safe. A trial is drawn on the mirror and stored whole, in one
transaction, as RUNNING: after a crash there is a trial with all of its parameters or none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from visionsweep.errors import UserError
from visionsweep.sweep.samplers import MakeSampler
from visionsweep.text import first_line

OWNER = "sweep:id"  # study attribute: the sweep that the study belongs to
_PRUNED_AT = "sweep:pruned_at"  # trial attribute: the step at which the trial was told to end
_STUDY_ATTRS = "sweep:study_attrs"  # trial attribute: what its sampler noted in the study
_NOTES = "sweep:notes"  # trial attribute: Notes

Suggest = Callable[[Trial], None]


@dataclass
class Notes:
    """What the sweep keeps beside Optuna's own fields of a trial."""

    start: float | None = None  # time.time()
    end: float | None = None
    epochs: int | None = None
    retries: int = 0
    seed_values: list[Any] = field(default_factory=list)  # what each finished seed returned
    seed_epochs: list[int] = field(default_factory=list)  # how many epochs it took
    duplicate_of: int | None = None
    error: str | None = None


class SweepStudy:
    """Asks, takes reports and tells, on the storage and its mirror alike. Numbers are those of trials, from 0."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        directions: Sequence[str],
        *,
        owner: str,
        make_sampler: MakeSampler,
        pruner: optuna.pruners.BasePruner,
        suggest: Suggest,
        presets: Sequence[Mapping[str, Any]] = (),
        history: Sequence[FrozenTrial] = (),
    ) -> None:
        """Open or create the study.

        ``suggest`` draws the parameters of a trial. The first trials take ``presets``, where missing ones are drawn.
        ``history`` informs the sampler. Raises `UserError` where the study is another sweep's.
        """
        self._storage = storage
        self._make_sampler = make_sampler
        self._suggest = suggest
        self.presets = presets
        self._offset = len(history)
        ways = [
            StudyDirection.MAXIMIZE if d == "maximize" else StudyDirection.MINIMIZE
            for d in directions
        ]
        self._study_id = _open(storage, name, ways, owner)
        self.mirror = optuna.create_study(
            storage=InMemoryStorage(),
            study_name=name,
            directions=ways,
            sampler=make_sampler(0),
            pruner=pruner,
        )
        for past in history:
            self.mirror.add_trial(past)
        self._ids: list[int] = []  # the storage's id of each trial
        self._notes: list[Notes] = []
        self._load()

    def _load(self) -> None:
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            if trial.number != len(self._ids):
                raise UserError(
                    f"the study lost trial {len(self._ids)}; its storage was changed by something else"
                )
            self._ids.append(trial._trial_id)
            self._notes.append(Notes(**trial.user_attrs.get(_NOTES, {})))
            self.mirror.add_trial(trial)
            for key, value in trial.system_attrs.get(_STUDY_ATTRS, {}).items():
                self._mirror_storage.set_study_system_attr(self.mirror._study_id, key, value)

    @property
    def _mirror_storage(self) -> BaseStorage:
        return self.mirror._storage

    def __len__(self) -> int:
        return len(self._ids)

    def trial(self, number: int) -> FrozenTrial:
        """Return the trial as Optuna sees it; do not change it."""
        return self._mirror_storage.get_trial(self._mirror_id(number))

    def trials(self) -> list[FrozenTrial]:
        """Return every trial of the sweep, by number; do not change them."""
        return self.mirror.get_trials(deepcopy=False)[self._offset :]

    def notes(self, number: int) -> Notes:
        """Return the sweep's notes on a trial; `save_notes` makes a change last."""
        return self._notes[number]

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
        trial = self.mirror.ask()
        self._suggest(trial)
        drawn = self._mirror_storage.get_trial(trial._trial_id)
        noted = {
            key: value for key, value in self._study_attrs().items() if before.get(key) != value
        }
        if noted:
            self._mirror_storage.set_trial_system_attr(trial._trial_id, _STUDY_ATTRS, noted)
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=drawn.user_attrs,
            system_attrs=self._mirror_storage.get_trial_system_attrs(trial._trial_id),
        )
        self._ids.append(self._storage.create_new_trial(self._study_id, template))
        self._notes.append(Notes())
        if self._storage.get_trial_number_from_id(self._ids[-1]) != number:
            raise UserError(f"trial {number} was taken: something else writes to this study")
        return number

    def _study_attrs(self) -> dict[str, Any]:
        return dict(self._mirror_storage.get_study_system_attrs(self.mirror._study_id))

    def report(self, number: int, step: int, value: float, *, may_prune: bool) -> bool:
        """Store the objective reached by `step`; return whether the trial should be pruned.

        A report that is made again (the trial died after it) gets the same answer.
        """
        mirror_id = self._mirror_id(number)
        noted = dict(self._mirror_storage.get_trial_system_attrs(mirror_id))
        self._mirror_storage.set_trial_intermediate_value(mirror_id, step, value)
        decided = noted.get(_PRUNED_AT) == step
        if may_prune:
            trial = self._mirror_storage.get_trial(mirror_id)
            decided = self.mirror.pruner.prune(self.mirror, trial) or decided
        # The decision first: pruners note that a rung was reached, and would let a trial pass that reports it again.
        if decided:
            self._set_system_attr(number, _PRUNED_AT, step)
        self._storage.set_trial_intermediate_value(self._ids[number], step, value)
        for key, attr in self._mirror_storage.get_trial_system_attrs(mirror_id).items():
            if noted.get(key) != attr and key != _PRUNED_AT:
                self._storage.set_trial_system_attr(self._ids[number], key, attr)
        return decided

    def pruned_at(self, number: int) -> int | None:
        """Return the step at which a trial was told to end, or None."""
        step: int | None = self.trial(number).system_attrs.get(_PRUNED_AT)
        return step

    def _set_system_attr(self, number: int, key: str, value: Any) -> None:
        self._mirror_storage.set_trial_system_attr(self._mirror_id(number), key, value)
        self._storage.set_trial_system_attr(self._ids[number], key, value)

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial with its values, one an objective."""
        self._end(number, TrialState.COMPLETE, list(values))

    def prune(self, number: int, value: float | None = None) -> None:
        """End a trial as pruned; its value is the last one reported unless given."""
        steps = self.trial(number).intermediate_values
        if value is None and steps and len(self.mirror.directions) == 1:
            value = steps[max(steps)]
        self._end(number, TrialState.PRUNED, None if value is None else [value])

    def fail(self, number: int) -> None:
        """End a trial as failed."""
        self._end(number, TrialState.FAIL, None)

    def _end(self, number: int, state: TrialState, values: list[float] | None) -> None:
        self.save_notes(number)
        trial = self.trial(number)
        self.mirror.sampler.after_trial(self.mirror, trial, state, values)
        self._storage.set_trial_state_values(self._ids[number], state, values)
        self._mirror_storage.set_trial_state_values(self._mirror_id(number), state, values)

    def save_notes(self, number: int) -> None:
        """Make the notes on a trial last."""
        notes = {
            key: value
            for key, value in vars(self._notes[number]).items()
            if value not in (None, [])
        }
        self._storage.set_trial_user_attr(self._ids[number], _NOTES, notes)

    def _mirror_id(self, number: int) -> int:
        return self._mirror_storage.get_trial_id_from_study_id_trial_number(
            self.mirror._study_id, number + self._offset
        )


def open_storage(url: str) -> BaseStorage:
    """Return the storage of an Optuna URL. Raises `UserError` where it cannot be opened."""
    # A trial may report once an hour: a server closes such connections. SQLite: somebody may be looking at the file.
    options = (
        {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    )
    try:
        database = optuna.storages.RDBStorage(url, engine_kwargs=options)
        _make_missing_indexes(database)
        return optuna.storages.get_storage(database)
    except Exception as error:  # SQLAlchemy's, and those of each database driver
        cause = (
            error.__cause__
            if isinstance(error, ImportError) and error.__cause__ is not None
            else error
        )
        reason = first_line(cause)
        if isinstance(cause, ModuleNotFoundError):
            reason += "; PostgreSQL needs pip install 'visionsweep[postgresql]'"
        shown = str(url).rpartition("@")[2]  # without a password
        raise UserError(
            f"hydra.sweeper.storage: cannot open {shown} ({type(error).__name__}: {reason}); "
            "expected an Optuna URL such as sqlite:///study.db or postgresql://HOST/DATABASE"
        ) from error


def _make_missing_indexes(database: optuna.storages.RDBStorage) -> None:
    """Make up for a death between a table's creation and its index's; SQLAlchemy makes indexes with new tables only.

    Without the unique index a second study takes the name of the first one.
    """
    for table in models.BaseModel.metadata.sorted_tables:
        for index in table.indexes:
            index.create(database.engine, checkfirst=True)


def _open(storage: BaseStorage, name: str, directions: Sequence[StudyDirection], owner: str) -> int:
    try:
        study_id = storage.create_new_study(list(directions), name)
    except optuna.exceptions.DuplicatedStudyError:
        study_id = storage.get_study_id_from_name(name)
        if storage.get_study_user_attrs(study_id).get(OWNER) != owner and storage.get_n_trials(
            study_id
        ):
            raise UserError(
                f"hydra.sweeper.study_name: the storage holds a study '{name}' of another sweep; choose another name"
            ) from None
        if storage.get_study_directions(study_id) != list(directions):
            raise UserError(
                f"hydra.sweeper.direction: the stored study '{name}' has another direction"
            ) from None
    storage.set_study_user_attr(study_id, OWNER, owner)
    return study_id


def past_trials(
    params_and_values: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
    distributions: Mapping[str, BaseDistribution],
) -> list[FrozenTrial]:
    """Return trials of an earlier study, as complete ones of this study's space; those that do not fit are left out."""
    found = []
    for params, values in params_and_values:
        if all(
            key in distributions and _fits(distributions[key], value)
            for key, value in params.items()
        ):
            known = {key: distributions[key] for key in params}
            found.append(
                optuna.trial.create_trial(
                    params=dict(params), distributions=known, values=list(values)
                )
            )
    return found


def _fits(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):  # no choice of it
        return False
