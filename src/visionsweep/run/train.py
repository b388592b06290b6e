"""Composition root of one experiment: seed, build, fit, record, return the objective.

`run(cfg)` is what `train.py` calls for every job; it also works in a notebook after `hydra.compose`.
"""

import logging
import signal
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from visionsweep.config.paths import from_directory, shown
from visionsweep.errors import ConfigError, UserError
from visionsweep.program import command
from visionsweep.run.assemble import Experiment, assemble
from visionsweep.run.description import (
    CONFIG,
    refuse_difference,
    resolved_config,
    take_up_trial,
    write_description,
)
from visionsweep.run.entry import record_failed_start, start_journal
from visionsweep.run.finish import end, end_again, finish
from visionsweep.run.identity import score_text
from visionsweep.run.progress import progress_bar
from visionsweep.run.recorder import Best, Recorder
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.heartbeat import watched
from visionsweep.rundir.journal import RUN_NAME_TAG, Journal
from visionsweep.rundir.lock import locked
from visionsweep.rundir.result import Objective, objective_of, read_result, result_of, write_result
from visionsweep.signals import stop_requests
from visionsweep.sweep.trial import Trial, TrialPruned, TrialStopped, current_trial
from visionsweep.training.loop import EpochResult, Interrupted, fit

log = logging.getLogger(__name__)

# A worker of a controller that died may still be about to end.
TRIAL_LOCK_SECONDS = 30.0
TRACEBACK = "traceback.txt"
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
)  # torch raises plain RuntimeErrors in places


class Stopped(TrialStopped):
    """The user ended the run; its directory can be resumed."""

    def __init__(self, run_dir: Path, signal_number: int) -> None:
        super().__init__(f"stopped; resume with: {command('train')} resume={shown(run_dir)}")
        self.signal_number = signal_number


def run(cfg: DictConfig) -> Objective:
    """Train one experiment; return its best objective, with `objective.others` a tuple of it and the others.

    The record goes to Hydra's output directory, or to `outputs/NAME` outside of a Hydra job. Raises `UserError`
    for what the user can mend (`result.json` then says `failed`) and `Stopped` after Ctrl-C.

    As a trial of a sweep (`current_trial`) the run reports each epoch the best objective so far: what it would
    return if it ended now. `TrialPruned` is raised where the sweep answers that the trial is losing. A trial whose
    directory holds a run goes on with it, and one that has ended there gives its result at once.
    """
    trial = current_trial()
    is_trial = trial.number is not None
    config = resolved_config(cfg)
    is_resumed = cfg.resume is not None
    run_dir = _run_dir(cfg, config)
    with locked(run_dir, TRIAL_LOCK_SECONDS if is_trial else 0.0):
        if is_trial and take_up_trial(config, run_dir):
            is_resumed = True
            stored = _stored_objective(run_dir)
            if stored is not None:
                return stored
        try:
            experiment = assemble(config, keep_dataset=is_trial)
            write_description(config, run_dir, experiment, is_resumed=is_resumed)
        except Exception as error:
            if not is_resumed:  # a run that went before keeps its result
                write_result(run_dir, result_of(config, "failed", error=_reason(error)))
                if is_trial:
                    record_failed_start(config, run_dir, _reason(error))
            raise
        return _train(config, run_dir, experiment, trial, is_resumed=is_resumed)


def check(cfg: DictConfig) -> dict[str, int]:
    """Build everything that a run of `cfg` would, and leave nothing behind; for `hydra.sweeper.check`.

    Returns the size of its best checkpoint, for the plan. Raises the `UserError` that the run would raise.
    """
    experiment = assemble(resolved_config(cfg), keep_dataset=True)
    weights = experiment.state.evaluated_model().state_dict().values()
    return {"checkpoint_bytes": sum(tensor.numel() * tensor.element_size() for tensor in weights)}


def _run_dir(cfg: DictConfig, config: dict[str, Any]) -> Path:
    resume = None if cfg.resume is None else Path(from_directory(cfg.resume, Path.cwd()))
    if HydraConfig.initialized():
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        if resume not in (None, run_dir):
            raise ConfigError(
                f"resume: type resume={cfg.resume} on the command line; it cannot stand in a config file"
            )
        return run_dir
    if resume is not None:
        if not (resume / CONFIG).is_file():
            raise ConfigError(f"resume: {resume} holds no run (no {CONFIG})")
        stored = OmegaConf.load(resume / CONFIG)
        for key in (
            "name",
            "study",
        ):  # the directory says which run it is; the time of day is no setting
            config[key] = OmegaConf.select(stored, key)
        refuse_difference(config, resume)
        return resume
    run_dir = Path(from_directory(f"outputs/{config['name']}", Path.cwd()))
    if run_dir.exists():
        raise UserError(f"{shown(run_dir)} exists already; give the run another name")
    run_dir.mkdir(parents=True)
    return run_dir


def _stored_objective(run_dir: Path) -> Objective | None:
    """Return the objective of a trial that finished before the sweep could note it; None for one that goes on."""
    result = read_result(run_dir)
    if result is None or result["state"] not in ("finished", "pruned"):
        return None
    end_again(run_dir, result["state"])
    log.info(
        "%s has %s already",
        shown(run_dir),
        "finished" if result["state"] == "finished" else "been pruned",
    )
    if result["state"] == "pruned":
        raise TrialPruned(f"after epoch {result['epochs']}")
    return objective_of(result)


def _train(
    config: dict[str, Any], run_dir: Path, experiment: Experiment, trial: Trial, *, is_resumed: bool
) -> Objective:
    journal = Journal(run_dir)
    objective, early_stopping = config["objective"], config["trainer"]["early_stopping"]
    best = Best(objective["direction"], early_stopping["patience"], early_stopping["min_delta"])
    recorder = Recorder(
        run_dir,
        experiment.state,
        best,
        journal,
        epochs=config["trainer"]["epochs"],
        inference=experiment.inference,
        objective=objective["metric"],
    )

    def stop() -> None:
        write_result(run_dir, result_of(config, "stopped", recorder))
        journal.end("stopped")

    title = start_journal(config, run_dir, experiment, journal)
    try:
        with watched(run_dir, journal, config["tracking"]["system_metrics"]):
            if is_resumed:
                recorder.resume()
            _fit(run_dir, experiment, recorder, trial)
            return finish(config, run_dir, experiment, recorder, title)
    except TrialPruned as pruned:
        log.info("pruned %s", pruned)
        if best.value is not None:
            journal.tags(
                {RUN_NAME_TAG: f"{title} {score_text(objective['metric'], best.value)} pruned"}
            )
        write_result(run_dir, result_of(config, "pruned", recorder))
        end(journal, run_dir, "pruned")
        raise
    except Stopped:
        stop()
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, or one outside of training: what is on disk stands
        stop()
        raise Stopped(run_dir, signal.SIGINT) from None
    except Exception as error:
        write_result(run_dir, result_of(config, "failed", recorder, error=_reason(error)))
        _record_failure(journal, run_dir, title, error)
        end(journal, run_dir, "failed", keep=_is_out_of_memory(error))
        raise
    finally:
        journal.close()


def _fit(run_dir: Path, experiment: Experiment, recorder: Recorder, trial: Trial) -> None:
    """Train to the end, recording and reporting each epoch. Raises `Stopped`, with `last.pt` at the last update."""

    def report(epoch: int) -> None:
        value = recorder.best.value
        assert value is not None  # an epoch was recorded
        if trial.report(value, epoch):
            raise TrialPruned(f"after epoch {epoch}: {experiment.settings.objective} {value:.4f}")

    def on_epoch_end(result: EpochResult) -> str | None:
        reason = recorder(result)
        report(
            result.epoch
        )  # last: a trial that dies while it waits for the answer has lost nothing
        return reason

    if recorder.history:  # the run may have died before its last report, or before the answer
        report(len(recorder.history))
    reason = recorder.best.give_up(
        experiment.state.epoch
    )  # a run may have died after its last epoch
    # Workers are told by the controller: a signal is none of theirs.
    nobody: AbstractContextManager[list[int]] = nullcontext([])
    message = "stopping after the current batch (once more: at once)"
    signals = stop_requests(message, once=True) if trial.number is None else nobody
    with signals as received, progress_bar() as progress:
        if reason is None:
            try:
                reason = fit(
                    experiment.state,
                    experiment.train,
                    experiment.val,
                    experiment.settings,
                    on_epoch_end=on_epoch_end,
                    should_stop=lambda: bool(received) or trial.should_stop(),
                    progress=progress,
                )
            except Interrupted:
                recorder.save_last()
                raise Stopped(run_dir, received[0] if received else signal.SIGINT) from None
    if reason is not None:
        log.info("ended early: %s", reason)


def _record_failure(journal: Journal, run_dir: Path, title: str, error: Exception) -> None:
    text = (
        f"{error}\n" if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    )
    write_text(run_dir / TRACEBACK, text)
    journal.artifact(TRACEBACK)
    journal.tags({"error": _reason(error), RUN_NAME_TAG: f"{title} failed"})


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether a sweep starts the trial again, from its checkpoint: such an error says nothing about it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return type(error) is RuntimeError and any(
        text in str(error).lower() for text in _OUT_OF_MEMORY
    )
