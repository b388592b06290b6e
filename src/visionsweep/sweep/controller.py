"""The controller: the only one that asks and tells. A free worker gets the next trial at once; there is no batch.

Owns the life of a trial: drawn, handed out, perhaps retried, one job a seed, ended. Knows no Hydra and no processes.
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import TrialState

from visionsweep.errors import UserError
from visionsweep.rundir.atomic import write_text
from visionsweep.sweep.display import Display, Status
from visionsweep.sweep.engines.engine import RETRIED, Ended, Engine, Event, Job, Reported, Started
from visionsweep.sweep.ranking import best
from visionsweep.sweep.results import TrialRecord
from visionsweep.sweep.settings import Settings
from visionsweep.sweep.study import SweepStudy

log = logging.getLogger(__name__)

ERROR_FILE = "error.txt"
RESULTS_SECONDS = 1.0  # results on disk are at most so old
FAILURES_COUNT_FROM = 10  # trials
_POLL_SECONDS = 0.25
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


class Jobs(Protocol):
    """Turns a trial's parameters into a job's overrides, and composes them."""

    def overrides(self, number: int, params: Mapping[str, Any], seed_index: int) -> tuple[str, ...]:
        """Return the complete overrides of one job."""

    def compose(self, overrides: Sequence[str]) -> Any:
        """Return the composed config of a job."""


@dataclass
class _Running:
    """A trial that is not in the study as ended."""

    number: int
    attempt: int = 0  # how often it was started before
    job: str | None = None  # key of the job that runs
    overrides: tuple[str, ...] = ()  # of that job
    config: Any = None  # composed ahead
    started: float | None = None  # of this attempt
    epochs: int = 0  # last step that this seed reported


@dataclass(frozen=True)
class Ending:
    """How a sweep ended."""

    code: int
    reason: str | None  # why it ended before n_trials
    is_interrupted: bool = False


class Controller:
    """Runs the trials of one study on one engine."""

    def __init__(
        self,
        study: SweepStudy,
        engine: Engine,
        jobs: Jobs,
        settings: Settings,
        *,
        n_trials: int,
        sweep_dir: Path,
        display: Display,
        write: Callable[[list[TrialRecord]], None],
        interrupts: Callable[[], int] = lambda: 0,
        epochs: int | None = None,
        valid_from: int = 0,
    ) -> None:
        """``write`` writes the results files; ``interrupts`` counts Ctrl-C; ``epochs`` is the last step of a run.

        Trials before ``valid_from`` had another fixed config: a repeated configuration does not take their values.
        """
        self._study = study
        self._engine = engine
        self._jobs = jobs
        self._settings = settings
        self._n_trials = n_trials
        self._sweep_dir = sweep_dir
        self._display = display
        self._write = write
        self._interrupts = interrupts
        self._epochs = epochs
        self._valid_from = valid_from
        self._running: dict[str, _Running] = {}  # by job key
        self._queue: deque[_Running] = deque()  # stored as running, to be handed out
        self._shadows: dict[
            int, list[int]
        ] = {}  # number -> trials with the same parameters that wait for its value
        self._by_params: dict[tuple[tuple[str, Any], ...], int] = {}
        self._records: dict[int, TrialRecord] = {}  # of trials that ended
        self._counts: Counter[str] = Counter()
        self._best: TrialRecord | None = None
        self._stop_reason: str | None = None
        self._fatal: str | None = None
        self._is_dirty = True
        self._written = -math.inf
        self._began = time.monotonic()
        self._durations: list[float] = []  # seconds a trial that ended here took

    def run(self) -> Ending:
        """Run until the total is reached, a limit ends the sweep, or the user does."""
        self._take_up()
        while True:
            self._look_at_limits()
            if self._interrupts() > 1:
                break
            self._hand_out()
            self._refresh()  # here, while every worker is busy
            if not self._running and (self._stop_reason is not None or not self._has_next()):
                break
            events = self._engine.poll(0.0 if self._may_prepare() else _POLL_SECONDS)
            for event in events:
                self._handle(event)
            if not events and self._may_prepare():
                self._prepare()
        self._write_results()
        return self._ending()

    def records(self) -> list[TrialRecord]:
        """Return every trial, by number."""
        return [
            self._records.get(number) or self._record(number) for number in range(len(self._study))
        ]

    def _take_up(self) -> None:
        unfinished = set(self._study.running())
        for number in range(len(self._study)):
            if number in unfinished and self._settle(number):  # its last write was cut off
                unfinished.remove(number)
            if number not in unfinished:
                if number >= self._valid_from:
                    self._by_params.setdefault(self._key(number), number)
                self._note(self._record(number))
            elif number < self._n_trials:
                was_started = (self._sweep_dir / str(number)).exists()
                self._queue.append(_Running(number, attempt=int(was_started)))

    # -- handing out

    def _has_next(self) -> bool:
        return bool(self._queue) or len(self._study) < self._n_trials

    def _hand_out(self) -> None:
        while self._stop_reason is None and self._engine.num_free > 0 and self._has_next():
            trial = self._queue.popleft() if self._queue else _Running(self._study.ask())
            if not self._is_duplicate(trial):
                self._submit(trial)

    def _hand_out_prepared(self) -> None:
        """Give the slot that just became free the trial that waits for it, before anything is written down."""
        is_free = self._settings.seeds == 1 and self._stop_reason is None and not self._interrupts()
        if (
            is_free
            and self._queue
            and self._queue[0].config is not None
            and self._engine.num_free > 0
        ):
            self._submit(self._queue.popleft())

    def _may_prepare(self) -> bool:
        """Whether there is something to do for the next trial while the others run.

        With one worker nothing is drawn ahead: the sampler sees every result before the next trial.
        """
        if self._stop_reason is not None or self._engine.num_free > 0:
            return False
        if self._queue:
            return self._queue[0].config is None
        return self._engine.num_slots > 1 and len(self._study) < self._n_trials

    def _prepare(self) -> None:
        if not self._queue:
            trial = _Running(self._study.ask())
            if not self._is_duplicate(trial):
                self._queue.append(trial)
            return
        trial = self._queue[0]
        trial.overrides = self._overrides(trial)
        trial.config = self._compose(trial.overrides)

    def _compose(self, overrides: tuple[str, ...]) -> Any:
        try:
            return self._jobs.compose(overrides)
        except Exception:
            log.debug("cannot compose %s", overrides, exc_info=True)
            return False  # the worker composes it again, and its error becomes the trial's

    def _overrides(self, trial: _Running) -> tuple[str, ...]:
        seed_index = len(self._study.notes(trial.number).seed_values)
        return self._jobs.overrides(
            trial.number, self._study.trial(trial.number).params, seed_index
        )

    def _submit(self, trial: _Running) -> None:
        settings = self._settings
        seed_index = len(self._study.notes(trial.number).seed_values)
        trial.job = (
            str(trial.number) if settings.seeds == 1 else f"{trial.number}/seed_{seed_index}"
        )
        overrides = trial.overrides or self._overrides(trial)
        config = self._compose(overrides) if trial.config is None else trial.config
        config, trial.overrides, trial.config = config or None, (), None
        self._running[trial.job] = trial
        self._engine.submit(
            Job(
                trial.job,
                trial.number,
                overrides,
                params=self._study.trial(trial.number).params,
                attempt=trial.attempt,
                config=config,
            )
        )

    # -- repeated configurations

    def _key(self, number: int) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted(self._study.trial(number).params.items()))

    def _is_duplicate(self, trial: _Running) -> bool:
        """Settle a trial whose parameters another one has already, or let it wait for that one."""
        original = self._by_params.setdefault(self._key(trial.number), trial.number)
        if original == trial.number or trial.attempt:
            return False
        state = self._study.trial(original).state
        if state == TrialState.FAIL:
            self._by_params[self._key(trial.number)] = trial.number
            return False
        if state.is_finished():
            self._copy(trial.number, original)
        else:
            self._shadows.setdefault(original, []).append(trial.number)
        return True

    def _copy(self, number: int, original: int) -> None:
        notes, found = self._study.notes(number), self._study.trial(original)
        notes.duplicate_of = original
        notes.start = notes.end = time.time()
        if found.state == TrialState.COMPLETE:
            self._study.complete(number, found.values)
        else:
            self._study.prune(number, None if found.values is None else found.values[0])
        self._ended(number)

    # -- events

    def _handle(self, event: Event) -> None:
        trial = self._running.get(event.key)
        if trial is None:  # a thread that a task left behind reports after its job's end
            return
        if isinstance(event, Started):
            trial.started = event.time
            notes = self._study.notes(trial.number)
            notes.start = notes.start or event.time
            self._display.started(
                trial.number, trial.attempt, event.slot, self._study.trial(trial.number).params
            )
        elif isinstance(event, Reported):
            self._report(trial, event)
        else:
            del self._running[event.key]
            if event.state not in RETRIED:
                self._hand_out_prepared()
            self._end(trial, event)

    def _report(self, trial: _Running, event: Reported) -> None:
        seed_index = len(self._study.notes(trial.number).seed_values)
        trial.epochs = event.step
        prune = False
        if seed_index == 0 and not self._settings.prunes_seeds:
            # A trial at its last epoch has nothing left to save: it completes, although a rung may lie there.
            may_prune = self._settings.prunes_epochs and (
                self._epochs is None or event.step < self._epochs
            )
            prune = self._study.report(trial.number, event.step, event.value, may_prune=may_prune)
        self._engine.answer(event.key, prune=prune)
        self._display.reported(trial.number, event.step, event.value)

    def _end(self, trial: _Running, event: Ended) -> None:
        notes = self._study.notes(trial.number)
        notes.end = event.ended
        if (
            not notes.seed_values and not self._settings.prunes_seeds
        ):  # reported before this process began
            trial.epochs = max([trial.epochs, *self._study.trial(trial.number).intermediate_values])
        notes.epochs = sum(notes.seed_epochs) + trial.epochs or None
        if event.state == "stopped":
            self._display.note(f"#{trial.number} stopped; it goes on from its checkpoint next time")
        elif event.state == "pruned":
            self._study.prune(trial.number)
            self._ended(trial.number)
        elif event.state == "completed":
            self._complete(trial, event)
        elif (
            event.state in RETRIED
            and notes.retries < self._settings.retries
            and self._interrupts() < 2
        ):
            notes.retries += 1
            self._study.save_notes(trial.number)
            self._display.note(
                f"#{trial.number} {event.error}; starts again from its checkpoint "
                f"({notes.retries} of {self._settings.retries} retries)"
            )
            self._queue.appendleft(
                _Running(trial.number, attempt=trial.attempt + 1, epochs=trial.epochs)
            )
        else:
            self._fail(trial.number, event.error or event.state, event.traceback)

    def _complete(self, trial: _Running, event: Ended) -> None:
        number, notes = trial.number, self._study.notes(trial.number)
        values, problem = objectives(event.value, len(self._settings.directions))
        if problem is not None:
            # NaN is a bad configuration; anything else is a bug of the task function, found at trial 0.
            if not values and all(t.state == TrialState.RUNNING for t in self._study.trials()):
                self._fatal = f"trial {number}: {problem}"
                self._stop(self._fatal)
            self._fail(number, problem, None)
            return
        notes.seed_values.append(values if len(values) > 1 else values[0])
        notes.seed_epochs.append(trial.epochs)
        done = len(notes.seed_values)
        if self._settings.prunes_seeds and done < self._settings.seeds:
            self._study.report(number, done, values[0], may_prune=True)
        if self._settle(number):
            self._ended(number)
            return
        self._study.save_notes(number)
        if self._stop_reason is None:
            self._submit(_Running(number, attempt=0))

    def _settle(self, number: int) -> bool:
        """End a trial in the study whose seeds are all there, or that was found to lose between two of them."""
        seed_values = self._study.notes(number).seed_values
        done = len(seed_values)
        if done and self._settings.prunes_seeds and self._study.pruned_at(number) == done:
            self._study.prune(number, math.fsum(seed_values) / done)
        elif done >= self._settings.seeds:
            columns = zip(*(v if isinstance(v, list) else [v] for v in seed_values), strict=True)
            self._study.complete(number, [math.fsum(column) / done for column in columns])
        else:
            return False
        return True

    def _fail(self, number: int, error: str, traceback: str | None) -> None:
        folder = self._sweep_dir / str(number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / ERROR_FILE, f"{traceback or error}\n".replace("\n\n", "\n"))
        except OSError as problem:
            self._display.note(f"cannot write {folder / ERROR_FILE} ({problem})")
        self._study.notes(number).error = error.splitlines()[0] if error else "unknown"
        self._study.fail(number)
        self._ended(number)

    def _ended(self, number: int) -> None:
        """Note that a trial ended in the study, and settle those that waited for it."""
        record = self._record(number)
        if record.start is not None and record.end is not None and record.duplicate_of is None:
            self._durations.append(record.end - record.start)
        is_best = self._note(record)
        self._is_dirty = True
        self._display.ended(record, is_best)
        for waiting in self._shadows.pop(number, []):
            if record.state == "failed":
                self._queue.append(_Running(waiting))
            else:
                self._copy(waiting, number)

    # -- ends

    def _stop(self, reason: str) -> None:
        if self._stop_reason is None:
            self._stop_reason = reason
            self._engine.stop()

    def _look_at_limits(self) -> None:
        settings = self._settings
        if self._interrupts() and self._stop_reason is None:
            self._display.note(
                "stopping: trials end after their current batch (once more: at once)"
            )
            self._stop("interrupted")
        if (
            settings.timeout_seconds is not None
            and time.monotonic() - self._began > settings.timeout_seconds
        ):
            self._stop(f"hydra.sweeper.timeout_seconds={settings.timeout_seconds:g} have passed")
        if self._best is not None and settings.target_value is not None:
            assert self._best.values is not None
            value, sign = self._best.values[0], 1 if settings.directions[0] == "maximize" else -1
            if sign * value >= sign * settings.target_value:
                self._stop(f"hydra.sweeper.target_value={settings.target_value:g} is reached")
        patience = settings.max_trials_without_improvement
        if patience is not None and self._best is not None:
            later = sum(
                n > self._best.number and r.state != "failed" for n, r in self._records.items()
            )
            if later >= patience:
                self._stop(
                    f"no better trial among the last {later} (hydra.sweeper.max_trials_without_improvement)"
                )
        ended, failed = len(self._records), self._counts["failed"]
        if ended >= FAILURES_COUNT_FROM and failed / ended > settings.max_failure_rate:
            self._fatal = (
                f"{failed} of {ended} trials failed "
                f"(hydra.sweeper.max_failure_rate={settings.max_failure_rate:g})"
            )
            self._stop(self._fatal)

    def _ending(self) -> Ending:
        if self._interrupts():
            return Ending(130, "interrupted", is_interrupted=True)
        return Ending(int(self._fatal is not None or self._best is None), self._stop_reason)

    # -- records

    def _record(self, number: int) -> TrialRecord:
        if number in self._records:
            return self._records[number]
        trial, notes = self._study.trial(number), self._study.notes(number)
        values = None if trial.values is None else tuple(trial.values)
        seeds = (
            tuple(v for v in notes.seed_values if isinstance(v, float))
            if self._settings.seeds > 1
            else ()
        )
        return TrialRecord(
            number=number,
            state=_STATES[trial.state],  # type: ignore[arg-type]
            values=values,
            params=trial.params,
            start=notes.start,
            end=notes.end,
            epochs=notes.epochs,
            directory=str(number if notes.duplicate_of is None else notes.duplicate_of),
            error=notes.error,
            duplicate_of=notes.duplicate_of,
            seed_values=seeds,
            retries=notes.retries,
        )

    def _note(self, record: TrialRecord) -> bool:
        """Take a trial that ended; return whether it is the best so far."""
        self._records[record.number] = record
        self._counts[record.state] += 1
        if record.state != "complete":
            return False
        others = [] if self._best is None else [self._best]
        self._best = best([*others, record], self._settings.directions)
        return self._best is record

    def _refresh(self) -> None:
        if self._is_dirty and time.monotonic() - self._written >= RESULTS_SECONDS:
            self._write_results()
        left = self._n_trials - len(self._records)
        mean = math.fsum(self._durations) / len(self._durations) if self._durations else None
        self._display.refresh(
            Status(
                complete=self._counts["complete"],
                pruned=self._counts["pruned"],
                failed=self._counts["failed"],
                running=len(self._running),
                total=self._n_trials,
                best=self._best,
                elapsed_seconds=time.monotonic() - self._began,
                seconds_left=None if mean is None else mean * left / self._engine.num_slots,
            )
        )

    def _write_results(self) -> None:
        self._written = time.monotonic()
        try:
            self._write(self.records())
        except OSError as error:  # a full disk: the study has it all, and it is tried again
            self._display.note(f"cannot write the results ({error}); trying again")
            return
        self._is_dirty = False


def objectives(value: Any, count: int) -> tuple[list[float], str | None]:
    """Return the values of `count` objectives, and what is wrong with what a task function returned.

    Without values it is no result at all; with values, one of them is not finite.
    """
    if value is None:
        return [], "the task function returned None; it must return the objective, a number"
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        values = [float(item) for item in given]
    except (TypeError, ValueError):
        return [], f"expected a number from the task function, got {value!r}"
    if len(values) != count:
        return (
            [],
            f"expected {count} objective value(s) from the task function, got {len(values)}: {value!r}",
        )
    if not all(math.isfinite(item) for item in values):
        return values, f"the objective is no finite number: {value!r}"
    return values, None


def require_trials(n_trials: int) -> int:
    """Return the total number of trials; raise `UserError` for an empty grid."""
    if n_trials < 1:
        raise UserError("hydra.sweeper: the search space has no configuration; name what to search")
    return n_trials
