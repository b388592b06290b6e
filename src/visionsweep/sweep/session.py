"""From a `Sweep` to its summary: check, open the study, run the controller, write results."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from sqlalchemy.exc import SQLAlchemyError

from visionsweep.errors import ConfigError, DataError, UserError
from visionsweep.program import program
from visionsweep.rundir.description import read_environment
from visionsweep.rundir.layout import SWEEP_LOG, run_place, runs_of_trial
from visionsweep.rundir.ranges import write_ranges
from visionsweep.rundir.usable import usable
from visionsweep.sweep import _hydra
from visionsweep.sweep.budget import Budget, spent_before
from visionsweep.sweep.budget_queue import STORED
from visionsweep.sweep.command_line import command_of
from visionsweep.sweep.controller import Controller
from visionsweep.sweep.data_digests import check_data, digests_of
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.directory_names import DirectoryNames
from visionsweep.sweep.display import make_display
from visionsweep.sweep.engines.engine import Check, Engine
from visionsweep.sweep.launcher import create_engine
from visionsweep.sweep.open_study import first_valid, open_study
from visionsweep.sweep.pace import Pace
from visionsweep.sweep.patience import GaveUp
from visionsweep.sweep.portfolio import portfolio_rule
from visionsweep.sweep.preflight import build, check_choices
from visionsweep.sweep.ranking import best
from visionsweep.sweep.repeats import entrants, next_trial, race_lines, seeds_rule
from visionsweep.sweep.results import write_results
from visionsweep.sweep.retention import remove_checkpoints
from visionsweep.sweep.several_objectives import pruning_rule
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.summary import failure, summary
from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.sweep.widen import ranges_of
from visionsweep.text import counted, first_line, mask_passwords

if TYPE_CHECKING:  # SciPy, which it imports, takes longer than the rest of a sweep's start
    from visionsweep.sweep.confirmation import Answer, Confirmation

log = logging.getLogger(__name__)


def run_session(sweep: Sweep, requests: Sequence[int], began: float | None = None) -> int:
    """Run the sweep, whose directory is locked; return the exit code.

    ``requests`` grows with each request to stop: the first ends trials at their next checkpoint,
    the second at once. ``began``: since when its time counts, by `time.monotonic`; None: from now.
    """
    began = time.monotonic() if began is None else began
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its line per trial says less than ours
    engine = create_engine(sweep, sweep.sweep_dir / SWEEP_LOG)
    try:
        _warn_of_threads(sweep, engine)
        if not sweep.current.is_checked:
            data = digests_of(check_choices(sweep, engine, requests))
            sweep = replace(sweep, current=replace(sweep.current, data=data))
        if requests:
            log.info("interrupted before a trial started")
            return 130
        try:
            with _storage_errors(sweep):
                study = open_study(sweep, requests=requests)
        except GaveUp as reason:
            log.info("interrupted before a trial started: %s", reason)
            return 130
        is_resumed = sweep.current.is_checked
        sweep = _as_started(sweep, study)
        if is_resumed and not _is_over(sweep, study):
            sweep = check_data(sweep, engine, len(study), requests)
        _require_free_directories(sweep, len(study))
        # Last, when nothing can be refused any more: until here the sweep is what it was, or does
        # not exist. A study without trials that a crash leaves here goes to whoever needs its name.
        with usable(sweep.sweep_dir, "hydra.sweep.dir"):
            sweep.current.write(sweep.sweep_dir)
        if sweep.previous is not None:
            log.info(_resumed(sweep, study))
        rule = pruning_rule(sweep.settings, sweep.composer.value_of(sweep.settings.metric_key))
        first = None if sweep.previous is not None else portfolio_rule(sweep.portfolio)
        for line in (first, rule, seeds_rule(sweep.settings)):
            if line is not None:
                log.info(line)
        log.info("resume with: %s", sweep.resume_command())
        confirmation = None
        if sweep.candidates is not None:
            from visionsweep.sweep.confirmation import Confirmation

            confirmation = Confirmation(sweep.sweep_dir, sweep.candidates, sweep.settings)
        with _storage_errors(sweep):
            code = _run(sweep, study, engine, requests, confirmation, began)
        if confirmation is not None and code == 0:
            engine.close()  # its workers were told to stop
            _conclude(sweep, study, confirmation, requests)
        _hydra.end_with(sweep.context, _LastLine(f"resume with: {sweep.resume_command()}"))
        return code
    finally:
        engine.close()


def _as_started(sweep: Sweep, study: SweepStudy) -> Sweep:
    """Return the sweep as it is stored, with the total number of trials."""
    valid_from = first_valid(sweep, study) if len(study) else sweep.current.valid_from
    n_trials = sweep.n_trials
    if sweep.grid is not None:  # one that was changed on the way has more points
        wanted, most = sweep.settings.n_trials, len(study.presets)
        n_trials = most if wanted is None else min(wanted, most)
    current = replace(sweep.current, is_checked=True, valid_from=valid_from)
    return replace(sweep, n_trials=n_trials, current=current)


def _num_ended(study: SweepStudy) -> int:
    return sum(trial.state.is_finished() for trial in study.trials())


def _is_over(sweep: Sweep, study: SweepStudy) -> bool:
    """Return whether no trial is left to run, and none has to get another seed."""
    settings = sweep.settings
    if _num_ended(study) < sweep.n_trials or not settings.races:
        return _num_ended(study) >= sweep.n_trials
    values = study.seed_values(sweep.current.valid_from)
    return next_trial(values, settings.seeds, settings.directions[0]) is None


def _resumed(sweep: Sweep, study: SweepStudy) -> str:
    ended = _num_ended(study)
    if sweep.settings.budget_minutes is not None:
        used = spent_before(study.attribute(STORED)).seconds / 60
        return (
            f"resuming study {sweep.study_name}: {counted(ended, 'trial')} of {len(study)} ended, "
            f"{used:.2f} of {sweep.settings.budget_minutes:g} minutes used"
        )
    line = f"resuming study {sweep.study_name}: {ended} of {sweep.n_trials} trials have ended"
    if _is_over(sweep, study) and sweep.grid is None:
        line += f"; nothing left to do. For more, set hydra.sweeper.n_trials={2 * ended}"
    return line


@contextlib.contextmanager
def _storage_errors(sweep: Sweep) -> Iterator[None]:
    """Turn the failure of a storage into one line: what it holds is enough to resume."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"hydra.sweeper.storage: {mask_passwords(sweep.storage_url)} failed "
            f"({first_line(cause)}). No trial that ended is lost. Fix the storage, then resume "
            f"with: {sweep.resume_command()}"
        ) from error


def _require_free_directories(sweep: Sweep, num_trials: int) -> None:
    """Raise `ConfigError` if a future trial would find another one's checkpoint."""
    taken = (int(path.name) for path in sweep.sweep_dir.glob("[0-9]*") if path.name.isdecimal())
    for number in sorted(number for number in taken if num_trials <= number < sweep.n_trials):
        directory = sweep.sweep_dir / run_place(number)
        if directory.exists():
            raise ConfigError(
                f"{directory} exists, but the study has no trial {number}: the directory belongs "
                "to another sweep, or the study's storage is lost. Restore the storage, or choose "
                "another study"
            )


def _warn_of_threads(sweep: Sweep, engine: Engine) -> None:
    threads = sweep.composer.value_of(sweep.settings.threads_key)
    if isinstance(threads, int) and threads * engine.num_slots > engine.num_cores:
        log.warning(
            "%s=%d for each of %d workers is more than the %d cores of this machine: "
            "trials slow each other down",
            *(sweep.settings.threads_key, threads, engine.num_slots, engine.num_cores),
        )


def _conclude(
    sweep: Sweep, study: SweepStudy, confirmation: "Confirmation", requests: Sequence[int]
) -> None:
    """Write and log the answer of a confirmation whose trials have ended.

    The confirmed configuration is scored on the test split, once.
    """
    states = [study.record(number).state for number in range(len(study))]
    if "running" in states:
        return  # a limit ended the sweep: it resumes
    complete = [number for number, state in enumerate(states) if state == "complete"]
    rounds = min(len(study.notes(number).seed_values) for number in complete)
    answer = confirmation.answer(rounds, complete)
    lines = confirmation.lines(answer)
    scores = _test_scores(sweep, study, answer, requests)
    lines += confirmation.last_lines(answer, scores)
    confirmation.write(answer, lines, scores)
    for line in lines:
        log.info(line)


def _test_scores(
    sweep: Sweep, study: SweepStudy, answer: "Answer", requests: Sequence[int]
) -> list[float]:
    """Return the scores of the confirmed runs on the test split; none if there is none."""
    function, number = sweep.settings.evaluate, answer.confirmed
    if function is None or number is None:
        return []
    params = study.params(number)
    indices = range(answer.rounds * sweep.settings.folds)  # it may have run ahead of the others
    jobs = [sweep.composer.overrides(number, params, index) for index in indices]
    with contextlib.closing(create_engine(sweep, sweep.sweep_dir / SWEEP_LOG)) as engine:
        found = build(jobs, Check(function, "hydra.sweeper.evaluate"), engine, requests)
    return [float(found[job]) for job in jobs if found.get(job) is not None]


def _budget(
    sweep: Sweep, study: SweepStudy, num_slots: int, began: float, say: Callable[[str], None]
) -> Budget | None:
    """Return the clock of a sweep that has a budget, with what earlier commands used of it."""
    minutes, epochs = sweep.settings.budget_minutes, sweep.epochs()
    if minutes is None:
        return None
    assert epochs is not None  # `prepare` refuses a budget without
    pace = Pace(epochs, sweep.settings.runs_in_a_row)
    before = study.attribute(STORED)
    return Budget(minutes, pace, num_slots, before=before, began=began, say=say)


def _run(
    sweep: Sweep,
    study: SweepStudy,
    engine: Engine,
    requests: Sequence[int],
    confirmation: "Confirmation | None",
    began: float,
) -> int:
    settings, sweep_dir = sweep.settings, sweep.sweep_dir
    metric = sweep.composer.value_of(settings.metric_key) or "value"
    epochs = sweep.epochs()
    names = DirectoryNames(sweep_dir, sweep.composer)
    cleaned: set[str] = set()

    threads = _ThreadsOfTrials(sweep_dir, engine.threads)

    def repeat(record: TrialRecord) -> list[str]:
        return sweep.repeat_overrides(record.number, record.params, threads.of(record))

    def write(records: list[TrialRecord]) -> None:
        names.update(records)
        write_ranges(sweep_dir, ranges_of(sweep, records))
        write_results(
            sweep_dir,
            records,
            settings.directions,
            overrides_of=repeat,
            is_group=sweep.composer.is_group,
            program=program(),
        )
        remove_checkpoints(
            sweep_dir,
            records,
            settings.directions,
            settings.keep_checkpoints,
            settings.checkpoint_folder,
            also=_contenders(sweep, study),
            cleaned=cleaned,
        )

    display = make_display(sweep_dir, epochs=epochs, metric=metric)
    budget = _budget(sweep, study, engine.num_slots, began, display.note)
    controller = Controller(
        study,
        engine,
        sweep.composer,
        settings,
        n_trials=sweep.n_trials,
        sweep_dir=sweep_dir,
        display=display,
        write=write,
        requests=requests,
        epochs=epochs,
        valid_from=sweep.current.valid_from,
        look=None if confirmation is None else confirmation.look,
        budget=budget,
    )
    try:
        end = controller.run()
    finally:
        display.close()
    records = controller.records()
    winner = best(records, settings.directions)
    if end.reason is not None:
        log.info("ended%s: %s", "" if budget is not None else " early", end.reason)
    if budget is not None:
        log.info(
            budget.spent().line(
                budget.minutes, sum(record.epochs is not None for record in records)
            )
        )
    for line in summary(
        records,
        settings.directions,
        sweep_dir=sweep_dir,
        repeat_command=None if winner is None else command_of(program(), repeat(winner)),
        full_epochs=None if epochs is None else epochs * settings.runs_in_a_row,
        metric=metric,
        is_interrupted=end.is_interrupted,
        expectation=None if winner is None else _expectation(sweep_dir, settings.directions),
        race=race_lines(study.seed_values(), settings) if len(settings.directions) == 1 else (),
        ranges=ranges_of(sweep, records),
    ):
        log.info(line)
    if end.code == 1:
        raise UserError(failure(records, end.reason))
    return end.code


def _contenders(sweep: Sweep, study: SweepStudy) -> list[int]:
    """Return the trials whose weights stay, however many others are better: one may still win."""
    settings = sweep.settings
    if not settings.races or _is_over(sweep, study):
        return []
    return entrants(study.seed_values(sweep.current.valid_from), settings.directions[0])


def _expectation(sweep_dir: Path, directions: Sequence[str]) -> str | None:
    """Return how good the best trial is on new images; None where predictions do not tell it."""
    if len(directions) > 1:
        return None
    from visionsweep.answer.selection import corrected_winner

    try:
        winner = corrected_winner(sweep_dir)
    except DataError as error:  # the sweep is complete all the same
        log.warning("%s", error)
        return None
    if winner is None:
        return None
    from visionsweep.answer.sentences import winner_sentence  # imports SciPy

    return winner_sentence(winner)


class _ThreadsOfTrials:
    """The CPU threads that trials ran on; a run that repeats one needs the same number."""

    def __init__(self, sweep_dir: Path, share: int) -> None:
        self._sweep_dir = sweep_dir
        self._share = share  # of a worker: what a trial uses unless it chooses less
        self._known: dict[int, int] = {}

    def of(self, record: TrialRecord) -> int:
        """Return the threads of a trial's first run, or the worker's share if it is not known."""
        if record.number not in self._known:
            first_run = runs_of_trial(self._sweep_dir / record.directory)[0]
            try:
                self._known[record.number] = int(read_environment(first_run)["threads"])
            except (DataError, KeyError, TypeError, ValueError):  # it has not begun, or is no run
                return self._share
        return self._known[record.number]


class _LastLine(Callback):
    """Logs a line after all that the app's own callbacks say at the end of a sweep."""

    def __init__(self, line: str) -> None:
        self._line = line

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Log the line."""
        log.info(self._line)
