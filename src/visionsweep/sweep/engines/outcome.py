"""How a job ended, as its worker sees it: the state that an exception means, and its text."""

import time
import traceback
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides

from visionsweep.errors import UserError, is_out_of_memory, is_out_of_space
from visionsweep.sweep.engines.engine import Ended, Job, State
from visionsweep.sweep.engines.pickling import dumps
from visionsweep.text import mask_passwords, message, printable, shortened

_MAX_ERROR = 500  # characters of the one line that tables show
_MAX_TRACEBACK = 100_000


@dataclass
class Outcome:
    """The end of a job, with objects that only its own process can hold."""

    state: State
    value: Any = None
    error: str | None = None
    traceback: str | None = None
    exception: BaseException | None = None
    job_return: JobReturn | None = None

    @classmethod
    def of_exception(cls, error: BaseException, frames: Any) -> "Outcome":
        """Return the outcome that an exception means; `frames` is the traceback to show."""
        state = _state_of(error)
        if state in ("pruned", "stopped"):
            return cls(state, error=one_line(message(error)) or None, exception=error)
        text = _traceback_text(error, frames)
        return cls(state, error=_described(error), traceback=text, exception=error)

    def pickled(self, job: Job, started: float, *, keep_job_return: bool) -> bytes:
        """Return the pickled `Ended` for the controller.

        A value that cannot be pickled makes the job a failure.
        """
        ended = time.time()
        try:
            dumps(self.value)
        except Exception as error:
            self._fail_to_return(error)
        job_return = self._job_return(job) if keep_job_return else None

        def pickle_ended() -> bytes:
            return dumps(
                Ended(
                    *(job.key, self.state, self.value, self.error, self.traceback),
                    *(started, ended, job_return),
                )
            )

        try:
            return pickle_ended()
        except Exception:
            if job_return is None:
                raise
            # The configs may hold objects that cannot be pickled.
            job_return.cfg = job_return.hydra_cfg = None
            if self.state != "completed":  # so may the exception
                job_return._return_value = RuntimeError(self.error)
            return pickle_ended()

    def _fail_to_return(self, error: Exception) -> None:
        kind = f"{type(self.value).__module__}.{type(self.value).__qualname__}"
        self.error = one_line(
            f"the task function returned a {kind}, which cannot be sent to the controller "
            f"({type(error).__name__}: {error}); return a number"
        )
        self.state, self.value, self.job_return = "failed", None, None
        self.exception = TypeError(self.error)

    def _job_return(self, job: Job) -> JobReturn:
        found = self.job_return
        if found is None:
            found = JobReturn(overrides=filter_overrides(job.overrides), status=JobStatus.COMPLETED)
        if self.state != "completed" and found.status is not JobStatus.FAILED:
            found.status = JobStatus.FAILED
            found.return_value = self.exception
        return found

    def forget_frames(self) -> None:
        """Drop the exception's frames: they hold the job's tensors, and the worker lives on."""
        error, seen = self.exception, set[int]()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


def _state_of(error: BaseException) -> State:
    # by name: Optuna's TrialPruned counts too, without importing Optuna
    names = {kind.__name__ for kind in type(error).__mro__}
    if "TrialPruned" in names:
        return "pruned"
    if "TrialStopped" in names or isinstance(error, KeyboardInterrupt):
        return "stopped"
    if is_out_of_space(error):
        return "out_of_space"
    return "out_of_memory" if is_out_of_memory(error) else "failed"


def _described(error: BaseException) -> str:
    name, text = type(error).__name__, message(error)
    is_for_user = isinstance(error, UserError) and text
    return one_line(text if is_for_user else f"{name}: {text}" if text.strip() else name)


def _traceback_text(error: BaseException, frames: Any) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # of a property of the exception
        text = "".join(traceback.format_tb(frames)) + _described(error)
    return mask_passwords(shortened(printable(text), _MAX_TRACEBACK))


def with_cause(error: Exception) -> str:
    """Return an error's message in one line, with that of its cause."""
    text = message(error)
    cause = "" if error.__cause__ is None else message(error.__cause__)
    return one_line(text if cause in text else f"{text}\n{cause}")


def one_line(text: str) -> str:
    """Return a message of several lines as one, of limited length, without passwords."""
    lines = filter(None, map(str.strip, mask_passwords(text).splitlines()))
    return shortened("; ".join(lines), _MAX_ERROR)
