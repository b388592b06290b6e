"""The controller of a sweep: the only one that asks and tells. Knows no Hydra and no processes.

It owns the life of a trial: drawn, submitted, perhaps retried, one job per seed and fold, ended. A
free worker gets the next trial at once; there are no batches.
"""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from visionsweep.errors import DataError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.end_paused import end_paused_run
from visionsweep.rundir.layout import TRIAL_ERROR, run_place
from visionsweep.sweep.budget import NO_LIMIT, Budget
from visionsweep.sweep.display import Display, Status
from visionsweep.sweep.duplicates import Duplicates
from visionsweep.sweep.engines.engine import (
    RETRIED,
    AttributesSet,
    Ended,
    Engine,
    Event,
    Reported,
    Started,
)
from visionsweep.sweep.folds import means, value_of_folds
from visionsweep.sweep.job_queue import Jobs, LiveTrial
from visionsweep.sweep.limits import is_good_enough, time_is_over, too_many_failures
from visionsweep.sweep.objective import objectives
from visionsweep.sweep.patience import GaveUp
from visionsweep.sweep.pause import Pause
from visionsweep.sweep.queues import make_queue
from visionsweep.sweep.repeats import next_trial
from visionsweep.sweep.settings import SweepSettings, report_problem
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.tally import Tally
from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.text import counted

# Gets the number of complete rounds and the numbers of the trials; returns a line and whether the
# answer is clear.
Look = Callable[[int, Sequence[int]], tuple[str | None, bool]]

BASELINE = 0  # the trial of a confirmation that the others are compared with
RESULTS_SECONDS = 1.0  # maximum age of the results on disk
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended."""

    code: int
    reason: str | None  # why it ended early
    is_interrupted: bool = False


class Controller:
    """Runs the trials of one study on one engine."""

    def __init__(
        self,
        study: SweepStudy,
        engine: Engine,
        jobs: Jobs,
        settings: SweepSettings,
        *,
        n_trials: int,
        sweep_dir: Path,
        display: Display,
        write: Callable[[list[TrialRecord]], None],
        requests: Sequence[int] = (),
        epochs: int | None = None,
        valid_from: int = 0,
        look: Look | None = None,
        budget: Budget | None = None,
    ) -> None:
        """``write`` writes the results. ``requests`` grows with each request to stop.

        ``epochs`` is the last step of a run. Trials before ``valid_from`` had another fixed config:
        a repeated configuration does not take their values. With ``look`` every trial runs its
        first seed before one runs its second, and so on, until ``look`` finds the answer clear.
        ``budget``: the clock of a sweep that has one.
        """
        self._study = study
        self._engine = engine
        self._settings = settings
        self._n_trials = n_trials
        self._sweep_dir = sweep_dir
        self._display = display
        self._write = write
        self._requests = requests
        self._epochs = epochs
        self._valid_from = valid_from
        self._running: dict[str, LiveTrial] = {}  # by job key
        self._events: deque[Event] = deque()
        self._queue = make_queue(study, jobs, n_trials, settings, budget)
        self._duplicates = Duplicates()
        self._tally = Tally(settings.directions)
        self._look = look
        self._num_looks = 0  # complete rounds that were looked at
        self._deciding_round: int | None = None  # after which the answer was clear
        self._noted: set[str] = set()  # lines that are shown once
        self._stop_reason: str | None = None
        self._has_failed = False
        self._is_dirty = True
        self._pause = Pause(sweep_dir)
        self._can_write = True
        self._written = -math.inf
        self._began = time.monotonic()

    def run(self) -> SweepEnd:
        """Run until the last trial has ended, a limit ends the sweep, or the user does."""
        try:
            self._run()
        except GaveUp as reason:
            self._abandon(str(reason))
        self._write_results()
        if self._requests:
            return SweepEnd(130, "interrupted", is_interrupted=True)
        return SweepEnd(int(self._has_failed or self._tally.best is None), self._stop_reason)

    def _run(self) -> None:
        self._resume()
        while True:
            self._check_limits()
            if len(self._requests) > 1:
                break
            self._submit_next()
            self._refresh()  # here, while every worker is busy
            if not self._running and (self._stop_reason is not None or not self._finds_next()):
                break
            self._events.extend(self._engine.poll(0.0 if self._may_prepare() else _POLL_SECONDS))
            if not self._events and self._may_prepare():
                self._prepare()
            while self._events:
                self._handle(self._events.popleft())
        self._complete_decided()
        self._end_paused()
        self._queue.save()
        for trial in self._running.values():  # after a second request to stop
            self._study.save_notes(trial.number)

    def _abandon(self, reason: str) -> None:
        """End the running trials at their checkpoints, with a study that cannot be written.

        It does not know what they did since, as after a crash: they resume with the next command.
        """
        if len(self._requests) < 2:
            self._display.note(f"{reason}: trials save a checkpoint and end, and will resume")
        self._engine.stop()
        for key in self._running:  # it may wait for the answer to a report
            self._engine.answer(key, prune=False)
        while self._running and len(self._requests) < 2:
            self._events.extend(self._engine.poll(_POLL_SECONDS))
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Ended):
                    self._running.pop(event.key, None)
                elif isinstance(event, Reported):
                    self._engine.answer(event.key, prune=False)

    def records(self) -> list[TrialRecord]:
        """Return every trial, by number."""
        ended = self._tally.records
        return [ended.get(n) or self._study.record(n) for n in range(len(self._study))]

    def _finds_next(self) -> bool:
        if self._queue.has_next() or self._study.look_for_enqueued():
            return True
        return self._next_contender() is not None

    def _resume(self) -> None:
        """Count the trials that have ended, and queue those that have not."""
        if self._settings.rerun_failed:
            self._reopen_failed()
        unfinished = set(self._study.running())
        for number in range(len(self._study)):
            if self._study.trial(number).state == TrialState.WAITING:
                continue
            if number in unfinished and self._end_if_decided(number):
                unfinished.remove(number)  # the process died before it could store the end
            if number not in unfinished:
                if number >= self._valid_from:
                    self._duplicates.original_of(number, self._study.params(number))
                self._tally.add(self._study.record(number))
            elif number < self._n_trials:
                was_started = (self._sweep_dir / run_place(number)).exists()
                self._queue.append(LiveTrial(number, attempt=int(was_started)))
        if self._look is not None:
            self._queue.draw_all()
            self._look_at_rounds()

    def _reopen_failed(self) -> None:
        numbers = self._study.reopen_failed()
        for number in numbers:
            with contextlib.suppress(OSError):
                (self._sweep_dir / run_place(number) / TRIAL_ERROR).unlink()
        listed = ", ".join(f"#{number}" for number in numbers)
        self._display.note(
            f"running {counted(len(numbers), 'failed trial')} again: {listed}"
            if numbers
            else "hydra.sweeper.rerun_failed: no trial has failed"
        )

    # -- submitting

    def _submit_next(self) -> None:
        queue = self._queue
        while (
            self._stop_reason is None
            and not self._pause.is_on()
            and self._engine.num_free > 0
            and queue.has_next()
        ):
            trial = queue.pop()
            if not self._needs_no_job(trial):
                self._submit(trial)
        while (
            self._stop_reason is None
            and not self._pause.is_on()
            and self._engine.num_free > 0
            and (number := self._next_contender()) is not None
        ):
            self._submit_seed(number)

    def _next_contender(self) -> int | None:
        """Return the trial that gets another seed, now that there is nothing else to start."""
        settings = self._settings
        if not settings.races or self._queue.has_next():
            return None
        running = [trial.number for trial in self._running.values()]
        values = self._study.seed_values(self._valid_from)
        return next_trial(values, settings.seeds, settings.directions[0], running)

    def _submit_seed(self, number: int) -> None:
        self._note_once(
            "no trial is left to begin: those that may be the best get more seeds, one by one, "
            f"at most {self._settings.seeds}"
        )
        place = run_place(number, *self._settings.seed_and_fold(self._study.notes(number).num_runs))
        self._study.begin_seed(number)
        self._submit(LiveTrial(number, attempt=int((self._sweep_dir / place).exists())))

    def _submit_prepared(self) -> None:
        """Fill the slot that just became free before anything about the last job is stored."""
        is_stopping = self._stop_reason is not None or self._requests
        if self._settings.runs_in_a_row > 1 or is_stopping or self._pause.is_on():
            return
        first = self._queue.first()
        if first is not None and first.config is not None and self._engine.num_free > 0:
            self._submit(self._queue.pop())

    def _submit(self, trial: LiveTrial) -> None:
        job = self._queue.job(trial)
        self._running[job.key] = trial
        self._engine.submit(job)

    def _may_prepare(self) -> bool:
        """Return whether there is work to do for the next trial while the others run.

        With one worker nothing is drawn ahead: the sampler sees every result before the next trial.
        """
        if self._stop_reason is not None or self._engine.num_free > 0:
            return False
        first = self._queue.first()
        if first is not None:
            return first.config is None
        return self._engine.num_slots > 1 and self._queue.can_draw()

    def _prepare(self) -> None:
        first = self._queue.first()
        if first is not None:
            self._queue.compose_ahead(first)
            return
        trial = self._queue.pop()
        if not self._needs_no_job(trial):
            self._queue.append(trial)

    # -- repeated configurations

    def _needs_no_job(self, trial: LiveTrial) -> bool:
        """Return whether a trial needs no job of its own.

        It takes the value of one with the same parameters, or waits for it. One that was enqueued
        and does not fit the space has failed already.
        """
        if self._study.trial(trial.number).state.is_finished():
            self._ended(trial.number)
            return True
        params = self._study.params(trial.number)
        original = self._duplicates.original_of(trial.number, params)
        if original == trial.number or trial.attempt:
            return False
        state = self._study.trial(original).state
        if state == TrialState.FAIL:
            self._duplicates.replace_original(trial.number, params)
            return False
        if state.is_finished():
            self._copy(trial.number, original)
        else:
            self._duplicates.wait(trial.number, original)
        return True

    def _copy(self, number: int, original: int) -> None:
        notes, trial = self._study.notes(number), self._study.trial(original)
        notes.duplicate_of = original
        notes.start = notes.end = time.time()
        if trial.state == TrialState.COMPLETE:
            self._study.complete(number, trial.values)
        else:
            self._study.prune(number, trial.values)
        self._ended(number)

    # -- events

    def _handle(self, event: Event) -> None:
        trial = self._running.get(event.key)
        if trial is None:  # a thread that a task left behind reports after its job's end
            return
        self._queue.heard(event, trial)
        if isinstance(event, Started):
            trial.started = event.time
            notes = self._study.notes(trial.number)
            notes.start = notes.start or event.time
            params = self._study.params(trial.number)
            attempt = 0 if trial.is_thawed else trial.attempt
            self._display.started(trial.number, attempt, event.slot, params)
        elif isinstance(event, Reported):
            self._report(trial, event)
        elif isinstance(event, AttributesSet):
            self._study.set_attributes(trial.number, event.attributes)
        else:
            del self._running[event.key]
            if event.state not in RETRIED:
                self._submit_prepared()
            self._end_job(trial, event)

    def _report(self, trial: LiveTrial, event: Reported) -> None:
        self._note_room()
        problem = report_problem(event.others, self._settings)
        if problem is not None:
            self._stop(f"trial {trial.number}: {problem}", is_failure=True)
        trial.epochs = event.step
        prune = pause = False
        is_first_run = not self._study.notes(trial.number).num_runs
        if is_first_run and not self._settings.prunes_runs and problem is None:
            # At its last epoch a trial has nothing left to save: it completes, even at a rung.
            is_last = self._epochs is not None and event.step >= self._epochs
            may_prune = self._settings.prunes_epochs and not is_last
            # A trial that was resumed says again what it has reached.
            is_news = event.step not in self._study.trial(trial.number).intermediate_values
            prune = self._study.report(
                trial.number, event.step, event.value, others=event.others, may_prune=may_prune
            )
            pause = is_news and not is_last and not self._queue.goes_on(trial.number)
        trial.is_paused = pause
        self._engine.answer(event.key, prune=prune, pause=pause)
        self._display.reported(trial.number, event.step, event.value)

    def _end_job(self, trial: LiveTrial, event: Ended) -> None:
        number, notes = trial.number, self._study.notes(trial.number)
        notes.end = event.ended
        notes.seconds = (notes.seconds or 0.0) + max(event.ended - event.started, 0.0)
        if not notes.num_runs and not self._settings.prunes_runs:
            # Some epochs may have been reported before this process started.
            trial.epochs = max([trial.epochs, *self._study.trial(number).intermediate_values])
        notes.epochs = sum(notes.seed_epochs) + trial.epochs or None
        if event.state == "stopped":
            self._study.save_notes(number)
            if trial.is_paused:
                self._display.paused(number)
                self._queue.append(LiveTrial(number, attempt=1))
            elif self._deciding_round is None:
                self._display.note(f"#{number} stopped; it resumes from its checkpoint")
        elif event.state == "pruned":
            self._study.prune(number)
            self._ended(number)
        elif event.state == "completed":
            self._complete_job(trial, event)
        elif event.state == "out_of_space":
            self._study.save_notes(number)
            self._queue.appendleft(LiveTrial(number, trial.attempt + 1, epochs=trial.epochs))
            if self._pause.begin():
                self._display.note(
                    f"paused: #{number} {event.error}. Trials resume when there is room "
                    "(Ctrl-C ends the sweep)"
                )
        elif (
            event.state in RETRIED
            and notes.retries < self._settings.retries
            and (len(self._requests) < 2)
        ):
            notes.retries += 1
            self._study.save_notes(number)
            self._display.note(
                f"#{number} {event.error}; resuming from its checkpoint "
                f"(retry {notes.retries} of {self._settings.retries})"
            )
            retry = LiveTrial(number, attempt=trial.attempt + 1, epochs=trial.epochs)
            self._queue.appendleft(retry)
        else:
            self._fail(number, event.error or event.state, event.traceback)

    def _note_room(self) -> None:
        if self._pause.end():
            self._display.note("there is room again")

    def _complete_job(self, trial: LiveTrial, event: Ended) -> None:
        self._note_room()
        number, notes = trial.number, self._study.notes(trial.number)
        values, problem = objectives(event.value, len(self._settings.directions))
        if problem is not None:
            # NaN is a bad configuration; anything else is a bug of the task function, which fails
            # the first trial already.
            if not values and not any(t.state.is_finished() for t in self._study.trials()):
                self._stop(f"trial {number}: {problem}", is_failure=True)
            self._fail(number, problem, None)
            return
        problem = self._add_run(number, values if len(values) > 1 else values[0])
        if problem is not None:
            self._fail(number, problem, None)
            return
        notes.seed_epochs.append(trial.epochs)
        done = notes.num_runs
        if self._settings.prunes_runs and done < self._settings.num_runs:
            self._study.report(number, done, values[0], others=values[1:], may_prune=True)
        if self._end_if_decided(number):
            self._ended(number)
            if self._look is not None:
                self._look_at_rounds()
            return
        self._study.save_notes(number)
        is_round = self._look is not None and done % self._settings.folds == 0
        if is_round:
            self._look_at_rounds()
        if self._stop_reason is None and is_round:
            self._queue.append(LiveTrial(number))  # after those that are a round behind
        elif self._stop_reason is None:
            self._submit(LiveTrial(number))

    def _add_run(self, number: int, value: list[float] | float) -> str | None:
        """Note what a run of a trial returned; return what is wrong with its folds, if anything."""
        notes, folds = self._study.notes(number), self._settings.folds
        if folds == 1:
            notes.seed_values.append(value)
            return None
        notes.fold_values.append(value)
        if len(notes.fold_values) % folds:
            return None
        seed = len(notes.seed_values)
        places = [self._settings.seed_and_fold(seed * folds + fold) for fold in range(folds)]
        run_dirs = [self._sweep_dir / run_place(number, *place) for place in places]
        try:
            pooled = value_of_folds(run_dirs, notes.fold_values[-folds:])
        except DataError as error:
            return str(error)
        for line in pooled.notes:
            self._note_once(line)
        values, problem = objectives(pooled.values, len(self._settings.directions))
        notes.seed_values.append(values if len(values) > 1 else values[0])
        return problem

    def _note_once(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self._display.note(line)

    def _end_if_decided(self, number: int) -> bool:
        """End a trial in the study if its last run is complete, or if a pruner ended it before.

        A contender ends after each seed, and begins again if it gets another.
        """
        notes = self._study.notes(number)
        done = notes.num_runs
        if done and self._settings.prunes_runs and self._study.pruned_at(number) == done:
            self._study.prune(number, means(notes.fold_values or notes.seed_values))
        elif done and done % self._settings.runs_in_a_row == 0:
            self._study.complete(number, means(notes.seed_values))
        else:
            return False
        return True

    # -- rounds: the trials of a confirmation, seed by seed

    def _look_at_rounds(self) -> None:
        """Look at each round that is complete; end the sweep once the answer is clear.

        Also at those of an earlier process, which may have died before it ended the sweep.
        """
        assert self._look is not None
        failed = [
            number
            for number in range(len(self._study))
            if self._study.trial(number).state == TrialState.FAIL
        ]
        if BASELINE in failed:
            reason = "the baseline failed, so there is nothing to compare with"
            self._stop(reason, is_failure=True)
            return
        if len(failed) == len(self._study) - 1:
            reason = "every configuration but the baseline failed, so nothing can be compared"
            self._stop(reason, is_failure=True)
            return
        while self._deciding_round is None and self._num_looks < self._settings.seeds:
            seed_values = {
                number: self._study.notes(number).seed_values
                for number in range(len(self._study))
                if number not in failed
            }
            if min(map(len, seed_values.values()), default=0) <= self._num_looks:
                return
            self._num_looks += 1
            line, is_clear = self._look(self._num_looks, list(seed_values))
            if line:
                self._display.note(line)
            if is_clear:
                self._deciding_round = self._num_looks
                if self._num_looks < self._settings.seeds:
                    self._stop(
                        f"the answer is clear after {self._num_looks} of "
                        f"{self._settings.seeds} seeds"
                    )

    def _complete_decided(self) -> None:
        """Complete the trials with the seeds that the answer was found with."""
        rounds, folds = self._deciding_round, self._settings.folds
        if rounds is None:
            return
        for number in self._study.running():
            notes = self._study.notes(number)
            del notes.seed_values[rounds:], notes.seed_epochs[rounds * folds :]
            del notes.fold_values[rounds * folds :]
            self._study.complete(number, means(notes.seed_values))
            self._ended(number)

    def _end_paused(self) -> None:
        """Prune the trials that nothing is left to be trained for, unless the sweep ended early."""
        if self._stop_reason is not None:
            return
        first = self._settings.seed_and_fold(0)
        for number in self._queue.paused():
            end_paused_run(self._sweep_dir / run_place(number, *first))
            self._study.prune(number)
            self._ended(number)

    def _fail(self, number: int, error: str, traceback: str | None) -> None:
        path = self._sweep_dir / run_place(number) / TRIAL_ERROR
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, f"{traceback or error}\n".replace("\n\n", "\n"))
        except OSError as problem:
            self._display.note(f"cannot write {path} ({problem})")
        self._study.notes(number).error = error.splitlines()[0] if error else "unknown"
        self._study.fail(number)
        self._ended(number)
        if self._look is not None:
            self._look_at_rounds()  # it may have been the last one of its round

    def _ended(self, number: int) -> None:
        """Record that a trial has ended, and finish those that waited for its value."""
        record = self._study.record(number)
        self._tally.add_duration(record)
        is_best = self._tally.add(record)
        self._is_dirty = True
        self._display.ended(record, is_best)
        if len(record.seed_values) > 1 and self._settings.races:
            for other in [r for r in self._tally.records.values() if r.duplicate_of == number]:
                self._tally.add(self._study.record(other.number))
        for waiting in self._duplicates.pop_waiting(number):
            if record.state == "failed":
                self._queue.append(LiveTrial(waiting))
            else:
                self._copy(waiting, number)

    # -- the end, and what is shown and written until then

    def _stop(self, reason: str, *, is_failure: bool = False) -> None:
        self._has_failed |= is_failure
        if self._stop_reason is None:
            self._stop_reason = reason
            self._engine.stop()

    def _check_limits(self) -> None:
        if self._requests and self._stop_reason is None:
            self._display.note(
                "stopping: trials save a checkpoint and end (Ctrl-C again: stop at once)"
            )
            self._stop("interrupted")
        over = time_is_over(self._settings, time.monotonic() - self._began)
        if over is None:
            over = self._queue.end([trial.number for trial in self._running.values()])
        if over is not None:
            self._stop(over)
        enough = is_good_enough(self._settings, self._tally)
        self._queue.is_closed = enough is not None
        # A value of one seed may be luck: first it is confirmed.
        is_racing = self._settings.races and (self._running or self._next_contender() is not None)
        if enough is not None and not is_racing:
            self._stop(enough)
        failures = too_many_failures(self._settings, self._tally)
        if failures is not None:
            self._stop(failures, is_failure=True)

    def _refresh(self) -> None:
        if self._is_dirty and time.monotonic() - self._written >= RESULTS_SECONDS:
            self._write_results()
        elapsed = time.monotonic() - self._began
        starts = [trial.started for trial in self._running.values()]
        running = [time.time() - start for start in starts if start is not None]
        left, total = self._queue.seconds_left(), self._n_trials
        if left is None:
            left = self._tally.seconds_left(total, self._engine.num_slots, running)
        counts, best = self._tally.counts, self._tally.best
        is_total = total < NO_LIMIT
        self._display.refresh(Status(counts, total if is_total else None, best, elapsed, left))

    def _write_results(self) -> None:
        self._written = time.monotonic()
        try:
            self._write(self.records())
        except OSError as error:  # a full disk: the study has everything
            if self._can_write:
                self._display.note(f"cannot write the results ({error}); trying again")
            self._can_write = False
            return
        self._is_dirty, self._can_write = False, True
