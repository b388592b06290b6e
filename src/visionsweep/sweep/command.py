"""`--multirun` with `hydra/sweeper=optuna_async`: from Hydra's call to the exit code."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from visionsweep.errors import UserError
from visionsweep.rundir.layout import SWEEP_LOG
from visionsweep.rundir.lock import locked
from visionsweep.rundir.usable import refuse_link, usable
from visionsweep.signals import stop_requests
from visionsweep.sweep.plan import plan
from visionsweep.sweep.prepare import prepare
from visionsweep.sweep.session import run_session
from visionsweep.sweep.space.space import warnings_of
from visionsweep.sweep.stored import read_stored

log = logging.getLogger(__name__)

_START_UP_SECONDS = 60.0  # no start of Python and Hydra takes longer


def run_sweep(
    context: HydraContext, config: DictConfig, task_function: TaskFunction, arguments: Sequence[str]
) -> int:
    """Start or resume a sweep; return the exit code: 0, 1 without a result, 130 after Ctrl-C.

    Raises `UserError` for what the user can fix, before any trial starts.
    """
    began = _began()
    sweep = prepare(context, config, task_function, arguments)
    for line in warnings_of(sweep.space):
        log.warning(line)
    if sweep.settings.dry_run:
        for line in plan(sweep):
            print(line)  # noqa: T201 - what the user asked for
        return 0
    with contextlib.ExitStack() as stack:
        with usable(sweep.sweep_dir, "hydra.sweep.dir"):
            sweep.sweep_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(sweep.sweep_dir))
            stack.enter_context(_log_to(sweep.sweep_dir / SWEEP_LOG))
            stored = read_stored(sweep.sweep_dir)
        requests = stack.enter_context(stop_requests())
        if stored != sweep.previous:
            raise UserError(
                f"another sweep has just changed {sweep.sweep_dir}; run the command again"
            )
        return run_session(sweep, requests, began)


def _began() -> float:
    """Return when this command began, by `time.monotonic`: a budget pays for its start-up too.

    An older process did something else before, such as another sweep.
    """
    age = time.time() - psutil.Process().create_time()
    return time.monotonic() - (age if 0 < age < _START_UP_SECONDS else 0.0)


class LogFile(logging.FileHandler):
    """A log file that loses lines while the disk is full; they are on the terminal too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ignore an error of the disk."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, even if its last lines cannot be written."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Copy every log line of this process to a file; a sweep refused at its start leaves none."""
    refuse_link(path)
    handler = LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        if path.exists() and not path.stat().st_size:  # the workers' output goes there too
            path.unlink()
