"""One job in a worker: its config, its output, the task function, and how it ended. No pipes, no processes."""

import contextlib
import ctypes
import functools
import logging
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.utils import execution_whitelist, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from visionsweep.errors import UserError
from visionsweep.sweep.engines.engine import Job, State
from visionsweep.sweep.engines.local.pickling import dumps
from visionsweep.sweep.trial import NoTrial, Trial, set_current_trial

CHECK_KEY = "hydra.sweeper.check"
_MAX_ERROR = 500  # characters of the one line that tables show
_TERMINAL_HANDLERS = ("StreamHandler", "RichHandler")
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
)  # torch raises plain RuntimeErrors in places


@dataclass(frozen=True)
class Ending:
    """How a job ended, as it travels to the controller."""

    key: str
    state: State
    started: float  # time.time()
    ended: float
    error: str | None  # one line
    traceback: str | None
    payload: bytes  # pickled (value, JobReturn or None)


class Runner:
    """Runs the jobs of one sweep in this process, one after the other."""

    def __init__(self, state: bytes) -> None:
        """``state``: cloudpickle of (HydraContext, the sweep's config, task function, Hydra's singletons, keep).

        With ``keep`` a job's Hydra `JobReturn` goes to the controller too.
        """
        setup_globals()
        self._context, self._config, self._function, singletons, self._keep = pickle.loads(state)
        Singleton.set_state(singletons)
        self._output = Output()

    def run(self, job: Job, trial: Trial, on_start: Callable[[str, float], None]) -> Ending:
        """Run a job to its end, whatever it raises. `on_start` gets its key and time."""
        started = time.time()
        if trial.should_stop():
            return Outcome("stopped", error="stopped before it began").ending(
                job, started, self._keep
            )
        on_start(job.key, started)
        hydra_config = HydraConfig.instance().cfg
        set_current_trial(trial)
        try:
            outcome = self._run(job)
        except (
            BaseException
        ) as error:  # of Hydra, a callback or the disk: a worker outlives every job
            outcome = Outcome.of(error, error.__traceback__)
        finally:
            set_current_trial(NoTrial())
            HydraConfig.instance().cfg = hydra_config
        ending = outcome.ending(job, started, self._keep)
        _forget_frames(outcome.exception)
        return ending

    def _run(self, job: Job) -> "Outcome":
        try:
            config, directory = self._compose(job)
        except (
            Exception
        ) as error:  # an override that does not fit the config: Hydra's message says all
            return Outcome("failed", error=_one_line(_with_cause(error)), exception=error)
        if job.check is not None:
            return self._check(job.check, config)
        task = _Task(self._function)
        with self._output.to(log_path(config, directory)):
            _configure_logging(config, self._context.execution_whitelist)
            try:
                job_return = run_job(
                    task_function=task,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                    hydra_context=self._context,
                    configure_logging=False,
                )
            finally:
                _close_logs()
        outcome = task.outcome or Outcome("completed", value=job_return._return_value)
        outcome.job_return = job_return
        return outcome

    def _check(self, function: str, config: DictConfig) -> "Outcome":
        """Call the function of that name with the job's config; no directory, no log."""
        HydraConfig.instance().set_config(config)  # a copy of its own
        with read_write(config), open_dict(config):
            del config["hydra"]
        with execution_whitelist(self._context.execution_whitelist, reset=True):
            try:
                # Refuses what the app's whitelist does not name.
                task = _Task(instantiate({"_target_": function, "_partial_": True}).func)
            except Exception as error:
                reason = _one_line(_with_cause(error))
                return Outcome("failed", error=f"{CHECK_KEY}={function}: {reason}", exception=error)
            value = None
            with contextlib.suppress(Exception):  # noted in the outcome
                value = task(config)
        return task.outcome or Outcome("completed", value=value)

    def _compose(self, job: Job) -> tuple[DictConfig, Path]:
        """Return the job's config, which is Hydra's current one from here on, and its absolute directory."""
        config: DictConfig = job.config
        if config is None:
            config = self._context.config_loader.load_sweep_config(
                self._config, list(job.overrides)
            )
        with read_write(config.hydra.job), open_dict(config.hydra.job):
            config.hydra.job.id = job.key
            config.hydra.job.num = job.number
        HydraConfig.instance().cfg = config  # type: ignore[assignment]  # run_job sets it again, with its checks
        directory = os.path.abspath(
            os.path.join(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
        )
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = directory
        return config, Path(directory)


@dataclass
class Outcome:
    """How a job ended, in the worker."""

    state: State
    value: Any = None
    error: str | None = None
    traceback: str | None = None
    exception: BaseException | None = None
    job_return: JobReturn | None = None

    @classmethod
    def of(cls, error: BaseException, frames: Any) -> "Outcome":
        """Return the outcome that an exception stands for; `frames` is the part of its traceback to show."""
        state = _state_of(error)
        if state in ("pruned", "stopped"):
            return cls(state, error=_one_line(str(error)) or None, exception=error)
        text = "".join(traceback.format_exception(type(error), error, frames))
        return cls(state, error=describe(error), traceback=text, exception=error)

    def ending(self, job: Job, started: float, keep: bool) -> Ending:
        """Return what is sent to the controller; a value that cannot be pickled makes a failure."""
        ended = time.time()
        try:
            payload = dumps((self.value, None))
        except Exception as error:
            kind = f"{type(self.value).__module__}.{type(self.value).__qualname__}"
            message = (
                f"the task function returned a {kind}, which cannot be sent to the controller "
                f"({type(error).__name__}: {error}); return a number"
            )
            self.state, self.value, self.error, self.job_return = (
                "failed",
                None,
                _one_line(message),
                None,
            )
            self.exception = TypeError(self.error)
            payload = dumps((None, None))
        if keep:
            payload = self._with_job_return(job)
        return Ending(job.key, self.state, started, ended, self.error, self.traceback, payload)

    def _with_job_return(self, job: Job) -> bytes:
        found = self.job_return or JobReturn(
            overrides=filter_overrides(job.overrides), status=JobStatus.COMPLETED
        )
        if self.state != "completed":
            found.status = JobStatus.FAILED
            if not isinstance(found._return_value, BaseException):
                found.return_value = self.exception
        try:
            return dumps((self.value, found))
        except Exception:  # a config may hold objects that cannot be pickled
            found.cfg = found.hydra_cfg = None
            return dumps((self.value, found))


class _Task:
    """The task function; how it ended is noted before Hydra sees it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.outcome: Outcome | None = None  # None: it returned a value

    def __call__(self, config: DictConfig) -> Any:
        try:
            return self._function(config)
        except BaseException as error:
            frames = error.__traceback__
            self.outcome = Outcome.of(error, frames and frames.tb_next)  # without this frame
            del frames
            if self.outcome.state in ("pruned", "stopped"):
                return None  # Hydra would log a decision as "Job failed", with a traceback
            if isinstance(error, Exception):
                raise
            raise RuntimeError(self.outcome.error) from error  # SystemExit must not end the worker


def _state_of(error: BaseException) -> State:
    names = {
        kind.__name__ for kind in type(error).__mro__
    }  # by name: optuna's and torch's, without importing them
    if "TrialPruned" in names:
        return "pruned"
    if "TrialStopped" in names or isinstance(error, KeyboardInterrupt):
        return "stopped"
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "out_of_memory"
    if type(error) is RuntimeError and any(text in str(error).lower() for text in _OUT_OF_MEMORY):
        return "out_of_memory"
    return "failed"


def describe(error: BaseException) -> str:
    """Return an exception as one line."""
    return _one_line(
        str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    )


def _with_cause(error: Exception) -> str:
    cause = error.__cause__
    return str(error) if cause is None or str(cause) in str(error) else f"{error}\n{cause}"


def _one_line(text: str) -> str:
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= _MAX_ERROR else line[: _MAX_ERROR - 3] + "..."


def _forget_frames(error: BaseException | None) -> None:
    """Drop the frames of an exception: they hold the job's tensors, and the worker lives on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class Output:
    """File descriptors 1 and 2 of this process, to be led to a job's log: prints, warnings, and what C code writes."""

    def __init__(self) -> None:
        self._own = (os.dup(1), os.dup(2))

    @contextlib.contextmanager
    def to(self, path: Path) -> Iterator[None]:
        """Append all output to `path` while this lasts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lead((log, log))
        finally:
            os.close(log)
        try:
            yield
        finally:
            self._lead(self._own)

    def _lead(self, targets: tuple[int, int]) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(
                AttributeError, ValueError, OSError
            ):  # replaced or closed by the app
                stream.flush()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # C's own buffers
        for descriptor, target in zip((1, 2), targets, strict=True):
            os.dup2(target, descriptor)


def log_path(config: DictConfig, directory: Path) -> Path:
    """Return the log file of a job: the one that Hydra's job logging writes below its directory, else `JOB.log`."""
    logging_config = _plain(config.hydra.job_logging)
    for handler in (logging_config.get("handlers") or {}).values():
        filename = handler.get("filename")
        if filename is not None and (path := Path(filename).absolute()).is_relative_to(directory):
            return path
    return directory / f"{config.hydra.job.name}.log"


def _configure_logging(config: DictConfig, whitelist: Any) -> None:
    """Set up logging as Hydra does, without the handlers whose lines the log file has already."""
    logging_config = config.hydra.job_logging
    if logging_config is not None:
        logging_config = OmegaConf.create(without_terminal(_plain(logging_config)))
    configure_log(logging_config, config.hydra.verbose, execution_whitelist=whitelist)


def _close_logs() -> None:
    """Take the job's handlers off the root logger: what is logged until the next job is none of its business."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()


def without_terminal(logging_config: dict[str, Any]) -> dict[str, Any]:
    """Return a logging config without the handlers that write to the terminal; unchanged if no file would remain."""
    handlers = logging_config.get("handlers") or {}
    if not any("filename" in handler for handler in handlers.values()):
        return logging_config

    def is_terminal(handler: dict[str, Any]) -> bool:
        kind = str(handler.get("class") or handler.get("()")).rpartition(".")[2]
        return kind in _TERMINAL_HANDLERS and str(
            handler.get("stream", "ext://sys.stderr")
        ).startswith("ext://sys.std")

    kept = {name: handler for name, handler in handlers.items() if not is_terminal(handler)}

    def trimmed(logger: Any) -> Any:
        if not isinstance(logger, dict) or not logger.get("handlers"):
            return logger
        return {**logger, "handlers": [name for name in logger["handlers"] if name in kept]}

    changed = {**logging_config, "handlers": kept, "root": trimmed(logging_config.get("root"))}
    if logging_config.get("loggers"):
        changed["loggers"] = {
            name: trimmed(logger) for name, logger in logging_config["loggers"].items()
        }
    return changed


def _plain(node: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}
