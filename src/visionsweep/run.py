"""Composition root of one experiment: seed, build, fit, record, return the objective.

`run(cfg)` is what `train.py` calls for every job; it also works in a notebook after `hydra.compose`.
"""

import logging
import signal
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from visionsweep.assembly import Experiment, assemble
from visionsweep.atomic import locked
from visionsweep.console import progress_bar
from visionsweep.description import CONFIG, refuse_difference, resolved_config, start_journal, write_description
from visionsweep.errors import ConfigError, UserError
from visionsweep.finish import finish
from visionsweep.paths import from_directory, shown
from visionsweep.recording import Best, Recorder
from visionsweep.results import result_of, write_result
from visionsweep.signals import stop_on_signal
from visionsweep.tracking.journal import Journal
from visionsweep.training import Interrupted, fit

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - the user's wish, not an error
    """The user ended the run; its directory can be resumed."""

    def __init__(self, run_dir: Path, signal_number: int) -> None:
        super().__init__(f"stopped; go on with: python train.py resume={shown(run_dir)}")
        self.signal_number = signal_number


def run(cfg: DictConfig) -> float:
    """Train one experiment; return its best objective.

    The record goes to Hydra's output directory, or to `outputs/NAME` outside of a Hydra job. Raises `UserError`
    for what the user can mend (`result.json` then says `failed`) and `Stopped` after Ctrl-C.
    """
    config = resolved_config(cfg)
    is_resumed = cfg.resume is not None
    run_dir = _run_dir(cfg, config)
    with locked(run_dir):
        try:
            experiment = assemble(config)
            write_description(config, run_dir, experiment, is_resumed=is_resumed)
        except Exception as error:
            if not is_resumed:  # a run that went before keeps its result
                write_result(run_dir, result_of(config, "failed", error=_reason(error)))
            raise
        return _train(config, run_dir, experiment, is_resumed=is_resumed)


def _run_dir(cfg: DictConfig, config: dict[str, Any]) -> Path:
    resume = None if cfg.resume is None else Path(from_directory(cfg.resume, Path.cwd()))
    if HydraConfig.initialized():
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        if resume not in (None, run_dir):
            raise ConfigError(f"resume: type resume={cfg.resume} on the command line; it cannot stand in a config file")
        return run_dir
    if resume is not None:
        if not (resume / CONFIG).is_file():
            raise ConfigError(f"resume: {resume} holds no run (no {CONFIG})")
        stored = OmegaConf.load(resume / CONFIG)
        for key in ("name", "study"):  # the directory says which run it is; the time of day is no setting
            config[key] = OmegaConf.select(stored, key)
        refuse_difference(config, resume)
        return resume
    run_dir = Path(from_directory(f"outputs/{config['name']}", Path.cwd()))
    if run_dir.exists():
        raise UserError(f"{shown(run_dir)} exists already; give the run another name")
    run_dir.mkdir(parents=True)
    return run_dir


def _train(config: dict[str, Any], run_dir: Path, experiment: Experiment, *, is_resumed: bool) -> float:
    journal = Journal(run_dir)
    objective, early_stopping = config["objective"], config["trainer"]["early_stopping"]
    best = Best(objective["direction"], early_stopping["patience"], early_stopping["min_delta"])
    epochs = config["trainer"]["epochs"]
    recorder = Recorder(run_dir, experiment.state, best, journal, epochs=epochs, inference=experiment.inference)

    def stop(signal_number: int) -> NoReturn:
        write_result(run_dir, result_of(config, "stopped", recorder))
        journal.end("stopped")
        raise Stopped(run_dir, signal_number) from None

    try:
        start_journal(config, run_dir, experiment, journal)
        if is_resumed:
            recorder.resume()
        reason = best.give_up(experiment.state.epoch)  # a run may have died after its last epoch
        with stop_on_signal() as received, progress_bar() as progress:
            if reason is None:
                reason = fit(
                    experiment.state,
                    experiment.train,
                    experiment.val,
                    experiment.settings,
                    on_epoch_end=recorder,
                    should_stop=lambda: bool(received),
                    progress=progress,
                )
        if reason is not None:
            log.info("ended early: %s", reason)
        return finish(config, run_dir, experiment, recorder)
    except Interrupted:
        recorder.save_last()
        stop(received[0])
    except KeyboardInterrupt:  # a second Ctrl-C, or one outside of training: what is on disk stands
        stop(signal.SIGINT)
    except Exception as error:
        write_result(run_dir, result_of(config, "failed", recorder, error=_reason(error)))
        journal.end("failed")
        raise
    finally:
        journal.close()


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
