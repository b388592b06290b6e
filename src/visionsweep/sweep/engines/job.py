"""Runs jobs in a worker, one after the other. No pipes, no processes."""

import contextlib
import copy
import functools
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job, setup_globals
from hydra.utils import execution_whitelist, instantiate
from omegaconf import DictConfig, open_dict, read_write

from visionsweep.config.hydra_errors import target_problem
from visionsweep.config.secrets import masked_config
from visionsweep.config.typed_text import quote
from visionsweep.program import config_flags
from visionsweep.sweep import _hydra
from visionsweep.sweep.engines.engine import Check, Job
from visionsweep.sweep.engines.outcome import Outcome, with_cause
from visionsweep.sweep.engines.output import Output, job_logging, log_path
from visionsweep.sweep.engines.process_state import ProcessState
from visionsweep.sweep.objective import portable
from visionsweep.sweep.stored import override_key, typed_overrides
from visionsweep.sweep.trial import NoTrial, Trial, set_current_trial


class JobRunner:
    """Runs the jobs of one sweep in this process."""

    def __init__(self, state: bytes) -> None:
        """``state``: what `local.pool` pickled: context, config, task function, singletons, keep.

        With ``keep`` the controller also gets each job's Hydra `JobReturn`.
        """
        setup_globals()
        self._context, self._config, self._function, singletons, self._keep = pickle.loads(state)
        _hydra.set_singletons(singletons)
        self._output = Output()
        self._state = ProcessState()

    def run(self, job: Job, trial: Trial, on_start: Callable[[str, float], None]) -> bytes:
        """Run a job to its end, whatever it raises; return the pickled `Ended`.

        ``on_start`` gets the job's key and start time.
        """
        started = time.time()
        if trial.should_stop():
            outcome = Outcome("stopped", error="stopped before it started")
            return outcome.pickled(job, started, keep_job_return=self._keep)
        on_start(job.key, started)
        hydra_config = HydraConfig.instance().cfg
        set_current_trial(trial)
        try:
            with self._state.kept():
                outcome = self._run(job)
        except BaseException as error:  # of Hydra, a callback or the disk: the worker lives on
            outcome = Outcome.of_exception(error, error.__traceback__)
        finally:
            set_current_trial(NoTrial())
            HydraConfig.instance().cfg = hydra_config
        ended = outcome.pickled(job, started, keep_job_return=self._keep)
        outcome.forget_frames()
        return ended

    def _run(self, job: Job) -> Outcome:
        try:
            config, directory = self._compose(job)
        except Exception as error:  # Hydra's message about an override needs no traceback
            return Outcome("failed", error=with_cause(error), exception=error)
        if job.check is not None:
            return self._check(job.check, config)
        sys.argv = _single_run(config, directory)
        hidden = masked_config(config)  # Hydra writes its config to files
        task = _Task(self._function, None if hidden is config else config)
        whitelist = self._context.execution_whitelist
        with self._output.to(log_path(config, directory)), job_logging(config, whitelist):
            job_return = run_job(
                task_function=task,
                config=hidden,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self._context,
                configure_logging=False,
            )
        outcome = task.outcome or Outcome("completed", value=portable(job_return.return_value))
        outcome.job_return = job_return
        return outcome

    def _check(self, check: Check, config: DictConfig) -> Outcome:
        """Call the function with the job's config; no directory, no log."""
        HydraConfig.instance().set_config(config)  # a copy of its own
        with read_write(config), open_dict(config):
            del config["hydra"]
        with execution_whitelist(self._context.execution_whitelist, reset=True):
            try:
                # Refuses a function that the app's whitelist does not allow.
                task = _Task(instantiate({"_target_": check.function, "_partial_": True}).func)
            except Exception as error:
                reason = f"{check}: {target_problem(error)}"
                return Outcome("failed", error=reason, exception=error)
            value = None
            if check.is_called:
                with contextlib.suppress(Exception):  # `task` keeps it as its outcome
                    value = task(config)
        return task.outcome or Outcome("completed", value=value)

    def _compose(self, job: Job) -> tuple[DictConfig, Path]:
        """Return the job's config, now Hydra's current one, and its absolute directory."""
        config: DictConfig = job.config
        if config is None:
            config = self._context.config_loader.load_sweep_config(
                self._config, list(job.overrides)
            )
        with read_write(config.hydra.job), open_dict(config.hydra.job):
            config.hydra.job.id = job.key
            config.hydra.job.num = job.number
        # Not `set_config`: `run_job` calls it, with its checks.
        HydraConfig.instance().cfg = config  # type: ignore[assignment]
        sweep = config.hydra.sweep
        directory = os.path.abspath(os.path.join(str(sweep.dir), str(sweep.subdir)))
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = directory
        return config, Path(directory)


def _single_run(config: DictConfig, directory: Path) -> list[str]:
    """Return the `sys.argv` of a single run of this job, whose output joins that of the job.

    Lightning, for example, starts the other processes of a job with it.
    """
    program = sys.argv[0]
    hydra, task = typed_overrides(config)  # others see a process's arguments, also a password
    return [
        os.path.abspath(program) if os.path.isfile(program) else program,
        *config_flags(),
        *(o for o in hydra if override_key(o) not in ("hydra.mode", "hydra.sweeper.storage")),
        *task,
        f"hydra.run.dir={quote(str(directory))}",
        "hydra.output_subdir=null",
        f"hydra.job.num={config.hydra.job.num}",
        f"hydra.job.id={quote(str(config.hydra.job.id))}",
    ]


class _Task:
    """The task function; keeps the outcome of an exception before Hydra sees it."""

    def __init__(self, function: Callable[[Any], Any], config: DictConfig | None = None) -> None:
        """``config``: that of the job if it has passwords, which Hydra's does not."""
        functools.update_wrapper(self, function)
        self._function = function
        self._config = config
        self.outcome: Outcome | None = None  # None: it returned a value

    def __call__(self, config: DictConfig) -> Any:
        if self._config is not None:
            config = copy.deepcopy(self._config)
            with read_write(config), open_dict(config):
                del config["hydra"]
        try:
            return self._function(config)
        except BaseException as error:
            frames = error.__traceback__
            self.outcome = Outcome.of_exception(error, frames and frames.tb_next)
            del frames
            if self.outcome.state in ("pruned", "stopped"):
                return None  # Hydra would log a decision as "Job failed", with a traceback
            if isinstance(error, Exception):
                raise
            raise RuntimeError(self.outcome.error) from error  # SystemExit must not end the worker
