"""One run from its start to its end, whatever ends it."""

import logging
import signal
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from visionsweep.config.hydra_settings import check_hydra_settings
from visionsweep.errors import UserError, is_out_of_memory, is_out_of_space
from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.context import RunContext, open_run
from visionsweep.run.description import resolved_config
from visionsweep.run.finish import (
    end,
    ended_objective,
    finish,
    objective_so_far,
    result_of,
)
from visionsweep.run.folds import check_folds_of_sweep, is_all_folds, run_folds
from visionsweep.run.identity import data_digest, run_title, score_text
from visionsweep.run.kept import forget_runs, keep, take
from visionsweep.run.progress import progress_bar
from visionsweep.run.recorder import Recorder
from visionsweep.run.start import record_failed_start, start_journal, write_description
from visionsweep.run.stopped import Stopped
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.heartbeat import heartbeat
from visionsweep.rundir.journal import RUN_NAME_TAG, Journal
from visionsweep.rundir.layout import TRACEBACK
from visionsweep.rundir.result import Objective, write_result
from visionsweep.signals import stop_requests
from visionsweep.sweep.trial import TrialPruned
from visionsweep.text import mask_passwords
from visionsweep.training.loop import EpochResult, Interrupted, fit

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Objective:
    """Train one run; return its best objective, or with `objective.others` a tuple of all.

    It writes to Hydra's output directory, or to `outputs/NAME` outside of a Hydra job: in a
    notebook, after `hydra.compose`. Raises `UserError` for what the user can fix (the result then
    says `failed`) and `Stopped` after Ctrl-C.

    As a trial of a sweep (`current_trial`) the run reports the best objective so far after each
    epoch, and raises `TrialPruned` if the sweep answers that it is losing. A trial that was started
    before is resumed; one that has ended returns its result at once.

    With `split.fold=all` it trains every fold in a directory of its own; the objective is that of
    their pooled predictions.
    """
    if not HydraConfig.initialized():
        _show_log()
    if is_all_folds(cfg):
        return run_folds(cfg, _run)
    return _run(cfg)


def _run(cfg: DictConfig, folds_dir: Path | None = None) -> Objective:
    """Train one run, or one fold of the run in `folds_dir`."""
    with open_run(cfg, folds_dir) as context:
        if context.is_resumed and (context.is_trial or folds_dir is not None):
            objective = ended_objective(context)
            if objective is not None:
                return objective
        try:
            check_folds_of_sweep(context.config)
            kept = take(context.run_dir) if context.is_resumed else None
            if kept is None:
                parts = assemble(
                    context.config,
                    threads=context.trial.threads,
                    stored_threads=(context.first_start or {}).get("threads"),
                    keep_dataset=context.is_trial or folds_dir is not None,
                )
            else:
                parts, progress = kept
            environment = write_description(context, parts)
        except Exception as error:
            forget_runs()  # the memory that they hold may be what is missing
            if not context.is_resumed:  # else the result of the earlier process stands
                write_result(context.run_dir, result_of(context, "failed", error=_reason(error)))
                if context.is_trial:
                    record_failed_start(context, _reason(error))
            raise
        journal = Journal(context.run_dir)
        try:
            recorder = Recorder(context, parts, journal)
            if kept is not None:
                recorder.go_on(progress)
            elif context.is_resumed:
                recorder.restore()  # before the first record: a refusal leaves the run as it was
            start_journal(context, parts, environment, journal)
            return _train(context, parts, recorder)
        finally:
            journal.close()


def check(cfg: DictConfig) -> dict[str, int | str]:
    """Build the parts of a run and write nothing; for `hydra.sweeper.check`.

    Returns the size of its best checkpoint and the digest of its data. Raises the `UserError` that
    the run would raise.
    """
    if HydraConfig.initialized():
        check_hydra_settings(HydraConfig.get())
    is_all_folds(cfg)  # refuses it in a sweep
    config = resolved_config(cfg)
    check_folds_of_sweep(config)
    parts = assemble(config, keep_dataset=True)
    weights = parts.state.inference_weights().values()
    return {
        "checkpoint_bytes": sum(tensor.numel() * tensor.element_size() for tensor in weights),
        "data": data_digest(parts.dataset),
    }


def _show_log() -> None:
    """Show the lines of a run if nobody has configured logging, as in a notebook."""
    package = logging.getLogger("visionsweep")
    if not package.hasHandlers():
        package.addHandler(logging.StreamHandler(sys.stdout))
        package.setLevel(logging.INFO)


def _train(context: RunContext, parts: RunParts, recorder: Recorder) -> Objective:
    run_dir, journal = context.run_dir, recorder.journal

    def stop() -> None:
        write_result(run_dir, result_of(context, "stopped", parts, recorder))
        journal.end("stopped")

    try:
        with heartbeat(run_dir, journal, context.config.tracking.system_metrics):
            recorder.record_missing()
            _fit(context, parts, recorder)
            return finish(context, parts, recorder)
    except TrialPruned as pruned:
        log.info("pruned %s", pruned)
        best = recorder.stopping.best
        if best is not None:
            score = score_text(context.config.objective.metric, best)
            journal.tags({RUN_NAME_TAG: run_title(context, f"{score} pruned")})
        write_result(run_dir, result_of(context, "pruned", parts, recorder))
        end(context, journal, "pruned")
        raise
    except Stopped:
        stop()
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, or one outside of training
        stop()
        raise Stopped(run_dir, signal.SIGINT) from None
    except Exception as error:
        forget_runs()
        reason = _reason(error)
        write_result(run_dir, result_of(context, "failed", parts, recorder, error=reason))
        _record_failure(context, journal, error)
        may_be_retried = is_out_of_memory(error) or is_out_of_space(error)
        end(context, journal, "failed", keep_last=may_be_retried)
        raise


def _fit(context: RunContext, parts: RunParts, recorder: Recorder) -> None:
    """Train to the end, recording and reporting each epoch. Raises `Stopped` or `TrialPruned`."""
    trial, state, stopping = context.trial, parts.state, recorder.stopping
    metric = context.config.objective.metric

    def report(epoch: int) -> None:
        assert stopping.best is not None
        if trial.report(objective_so_far(context, parts, recorder), epoch):
            raise TrialPruned(f"after epoch {epoch}: {metric} {stopping.best:.4f}")

    def on_epoch_end(result: EpochResult) -> bool:
        should_stop = recorder(result)
        report(result.epoch)  # last: a trial that dies before the answer loses nothing
        if not should_stop:
            pause(result.epoch)
        return should_stop

    def pause(epoch: int) -> None:
        """End a trial that has more epochs, if the sweep wants it; all of it is saved."""
        if context.is_trial and epoch < parts.settings.epochs and trial.should_stop():
            keep(context.run_dir, parts, recorder.progress())
            raise Stopped(context.run_dir, signal.SIGINT)

    # An earlier process may have died before its last report, or before the answer, ...
    if recorder.history:
        report(len(recorder.history))
        if not stopping.should_stop(state.epoch):
            pause(state.epoch)
    # ... or after its last epoch.
    if not stopping.should_stop(state.epoch):
        # The controller stops its workers; a single run handles the signals itself.
        message = "stopping after the current batch (once more: at once)"
        workers: AbstractContextManager[list[int]] = nullcontext([])
        signals = workers if context.is_trial else stop_requests(message, once=True)
        with signals as received, progress_bar() as progress:
            try:
                for number in range(state.phase, len(parts.phases)):
                    if stopping.should_stop(state.epoch):
                        break
                    parts.begin_phase(number)
                    fit(
                        *(state, parts.train, parts.val),
                        replace(parts.settings, epochs=parts.phase.last_epoch),
                        on_epoch_end=on_epoch_end,
                        should_stop=lambda: bool(received) or trial.should_stop(),
                        progress=progress,
                    )
            except Interrupted:
                recorder.save_last()
                number = received[0] if received else signal.SIGINT
                raise Stopped(context.run_dir, number) from None
    if stopping.should_stop(state.epoch):
        log.info("early stopping: no better %s for %d epochs", metric, stopping.patience)


def _record_failure(context: RunContext, journal: Journal, error: Exception) -> None:
    lines = [f"{error}\n"] if isinstance(error, UserError) else traceback.format_exception(error)
    write_text(context.run_dir / TRACEBACK, mask_passwords("".join(lines)))
    journal.artifact(TRACEBACK)
    journal.tags({"error": _reason(error), RUN_NAME_TAG: run_title(context, "failed")})


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return mask_passwords(f"{kind}{error}")
