"""From a prepared sweep to its summary: check every choice, open the study, run the controller, write the results."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.trial import Trial
from sqlalchemy.exc import SQLAlchemyError

from visionsweep.errors import ConfigError, UserError
from visionsweep.program import program
from visionsweep.sweep.command import LOG, Sweep, create_engine, load_history
from visionsweep.sweep.controller import Controller, require_trials
from visionsweep.sweep.display import make_display, summary
from visionsweep.sweep.engines.engine import Engine
from visionsweep.sweep.preflight import check_choices
from visionsweep.sweep.ranking import best
from visionsweep.sweep.results import TrialRecord, command_of, write_results
from visionsweep.sweep.retention import remove_checkpoints
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.stored import differences, without_password
from visionsweep.sweep.study import SweepStudy, open_storage, past_trials
from visionsweep.text import first_line

log = logging.getLogger(__name__)


def run_session(sweep: Sweep, interrupts: Callable[[], int]) -> int:
    """Run the sweep, whose directory is locked; return the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its line a trial says less than ours
    require_trials(sweep.n_trials)
    build_pruner(sweep.settings.pruner)
    sampler_factory(sweep.settings.sampler, sweep.stored.seed)(0)
    engine = create_engine(sweep, sweep.sweep_dir / LOG)
    try:
        _warn_of_threads(sweep, engine)
        if not sweep.stored.is_checked:
            check_choices(sweep, engine, interrupts)
        if interrupts():
            log.info("interrupted before a trial began")
            return 130
        with _storage_errors(sweep):
            study = open_study(sweep)
        if sweep.found is not None and sweep.found.config != sweep.stored.config and len(study):
            sweep = replace(
                sweep, stored=replace(sweep.stored, valid_from=_first_valid(sweep, study))
            )
        if sweep.grid is not None:
            sweep = replace(sweep, n_trials=_grid_total(sweep, study))
        _require_free_directories(sweep, len(study))
        # Last, when nothing can be refused any more: until here the sweep is what it was, or does not exist. A study
        # that a crash leaves here has no trial, and whoever needs its name takes it over.
        replace(sweep.stored, is_checked=True).write(sweep.sweep_dir)
        if sweep.found is not None:
            log.info(_taken_up(sweep, study))
        log.info("go on with: %s", sweep.continue_command())
        with _storage_errors(sweep):
            return _run(sweep, study, engine, interrupts)
    finally:
        engine.close()


def _taken_up(sweep: Sweep, study: SweepStudy) -> str:
    ended = sum(trial.state.is_finished() for trial in study.trials())
    line = f"study {sweep.study_name}, taken up: {ended} of {sweep.n_trials} trials have ended"
    if ended >= sweep.n_trials and sweep.grid is None:
        line += f"; nothing is left to do, for more give hydra.sweeper.n_trials={2 * ended}"
    return line


@contextlib.contextmanager
def _storage_errors(sweep: Sweep) -> Iterator[None]:
    """Turn a storage that fails in the middle of a sweep into one line: what it holds is enough to go on."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"hydra.sweeper.storage: {without_password(sweep.storage_url)} failed ({first_line(cause)}); nothing that "
            f"ended is lost. Mend it, then go on with: {sweep.continue_command()}"
        ) from error


def _first_valid(sweep: Sweep, study: SweepStudy) -> int:
    """Return the number of the first trial with the changed config, unless only what may change has."""
    settings = sweep.settings
    free = [*settings.may_change, *([settings.study_key] if settings.study_key else [])]
    assert sweep.found is not None
    is_changed = differences(sweep.found, sweep.found.search, sweep.stored.config, free)
    return len(study) if is_changed else sweep.stored.valid_from


def open_study(sweep: Sweep, storage: optuna.storages.BaseStorage | None = None) -> SweepStudy:
    """Open or create the study, in the sweep's own storage unless another is given."""
    optuna_storage = storage or open_storage(sweep.storage_url)
    settings = sweep.settings
    distributions = {dimension.key: dimension.distribution for dimension in sweep.space.dimensions}
    custom = _custom_search_space(settings.custom_search_space)

    def suggest(trial: Trial) -> None:
        sweep.space.suggest(trial)
        for key, value in sweep.space.fixed.items():
            trial.set_user_attr(
                key, value
            )  # as upstream, whose documentation tells custom search spaces to look here
        if custom is not None:
            custom(sweep.config, trial)
            _require_no_overlap(trial)

    study = SweepStudy(
        optuna_storage,
        sweep.study_name,
        settings.directions,
        owner=sweep.stored.id,
        make_sampler=sampler_factory(settings.sampler, sweep.stored.seed),
        pruner=build_pruner(settings.pruner),
        suggest=suggest,
        presets=settings.enqueue,
        history=past_trials(load_history(sweep), distributions) if storage is None else (),
    )
    for trial in study.trials():
        for key, before in trial.distributions.items():
            if key in distributions:
                try:
                    check_distribution_compatibility(before, distributions[key])
                except ValueError:
                    hint = (
                        ""
                        if sweep.grid is not None
                        else f" with hydra.sweeper.warm_start={sweep.sweep_dir}"
                    )
                    raise ConfigError(
                        f"{key}: the choices of a parameter cannot change within one study; start a new one{hint}"
                    ) from None
    if sweep.grid is not None:
        done = [sweep.space.active(trial.params) for trial in study.trials()]
        valid = done[_first_valid(sweep, study) if sweep.found is not None else 0 :]
        study.presets = [*done, *(point for point in sweep.grid if point not in valid)]
    return study


def _grid_total(sweep: Sweep, study: SweepStudy) -> int:
    """Return how many trials there will be; more than the grid has points where it was changed on the way."""
    wanted, most = sweep.settings.n_trials, len(study.presets)
    return most if wanted is None else min(wanted, most)


def _require_free_directories(sweep: Sweep, num_trials: int) -> None:
    """Raise `ConfigError` where a trial to come would find a foreign checkpoint in its directory."""
    for number in range(num_trials, sweep.n_trials):
        if (sweep.sweep_dir / str(number)).exists():
            raise ConfigError(
                f"{sweep.sweep_dir / str(number)} exists, but the study has no trial {number}: the directory is of "
                "another sweep, or the study's storage was lost; restore it, or choose another study"
            )


def _custom_search_space(dotpath: str | None) -> Callable[[Any, Trial], None] | None:
    if dotpath is None:
        return None
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        function: Callable[[Any, Trial], None] = instantiate(
            {"_target_": dotpath, "_partial_": True}
        )
    except InstantiationException as error:
        raise ConfigError(f"hydra.sweeper.custom_search_space: {first_line(error)}") from error
    return function


def _require_no_overlap(trial: Trial) -> None:
    for key in trial.params.keys() & trial.user_attrs.keys():
        raise ConfigError(
            f"{key}: is given the value {trial.user_attrs[key]}, and drawn by hydra.sweeper.custom_search_space; "
            "take one of them out"
        )


def _warn_of_threads(sweep: Sweep, engine: Engine) -> None:
    threads = sweep.composer.value_of(sweep.settings.threads_key)
    if isinstance(threads, int) and threads * engine.num_slots > engine.num_cores:
        log.warning(
            "%s=%d for each of %d workers is more than the %d cores of this machine: trials slow each other down",
            sweep.settings.threads_key,
            threads,
            engine.num_slots,
            engine.num_cores,
        )


def _run(sweep: Sweep, study: SweepStudy, engine: Engine, interrupts: Callable[[], int]) -> int:
    settings = sweep.settings
    metric = sweep.composer.value_of(settings.metric_key) or "value"
    epochs = sweep.epochs()
    cleaned: set[str] = set()

    def repeat(record: TrialRecord) -> list[str]:
        return sweep.repeat_overrides(record.number, record.params, engine.threads)

    def write(records: list[TrialRecord]) -> None:
        write_results(
            sweep.sweep_dir,
            records,
            settings.directions,
            overrides_of=repeat,
            is_group=sweep.composer.is_group,
            program=program(),
        )
        remove_checkpoints(
            sweep.sweep_dir,
            records,
            settings.directions,
            settings.keep_checkpoints,
            settings.checkpoint_folder,
            cleaned=cleaned,
        )

    display = make_display(sweep.sweep_dir, epochs=epochs, metric=metric)
    controller = Controller(
        study,
        engine,
        sweep.composer,
        settings,
        n_trials=sweep.n_trials,
        sweep_dir=sweep.sweep_dir,
        display=display,
        write=write,
        interrupts=interrupts,
        epochs=epochs,
        valid_from=sweep.stored.valid_from,
    )
    try:
        ending = controller.run()
    finally:
        display.close()
    records = controller.records()
    winner = best(records, settings.directions)
    if ending.reason is not None:
        log.info("ended early: %s", ending.reason)
    for line in summary(
        records,
        settings.directions,
        full_epochs=None if epochs is None else epochs * settings.seeds,
        metric=metric,
        sweep_dir=sweep.sweep_dir,
        reproduce_command=None if winner is None else command_of(repeat(winner), program()),
        continue_command=sweep.continue_command(),
        interrupted=ending.is_interrupted,
    ):
        log.info(line)
    return ending.code
