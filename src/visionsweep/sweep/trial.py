"""The trial as the task function sees it: report to it, ask it whether to stop.

A task function works outside a sweep too: `current_trial()` then never prunes.

    from visionsweep.sweep.trial import TrialPruned, current_trial

    @hydra.main(...)
    def main(cfg):
        trial = current_trial()
        for epoch in range(1, cfg.epochs + 1):
            value = train_one_epoch(...)
            if trial.report(value, epoch):
                raise TrialPruned(f"at epoch {epoch}")
        return value
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol


class TrialPruned(Exception):  # noqa: N818 - a decision, not an error
    """Raised by the task function to end a trial that `report` said is losing."""


class TrialStopped(Exception):  # noqa: N818 - a request of the user, not an error
    """Raised by the task function once `should_stop()` is true; the trial can be resumed."""


class Trial(Protocol):
    """The trial of a running job."""

    @property
    def number(self) -> int | None:
        """The number of the trial and its job; None outside a sweep."""

    @property
    def attempt(self) -> int:
        """How often the trial was started before; if so, its directory may hold a checkpoint."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The searched parameters, in the order of the space; empty outside a sweep."""

    @property
    def threads(self) -> int | None:
        """CPU threads that this worker may use; None: all (outside a worker)."""

    def report(self, value: float | Sequence[float], step: int) -> bool:
        """Report the objective after `step` (an epoch, from 1); return whether to be pruned.

        With several objectives: all that the task would return if it ended here, or the first.
        """

    def set(self, **attributes: Any) -> None:
        """Attach values to the trial: Optuna user attributes, and columns of ``trials.csv``.

        Numbers, strings, booleans, None, and lists and mappings of them.
        """

    def should_stop(self) -> bool:
        """Return whether to save a checkpoint and raise `TrialStopped`.

        The sweep is to end, or another trial promises more than this one, which is resumed later.
        """


class NoTrial:
    """The trial of a run outside a sweep: never pruned, never stopped."""

    number: int | None = None
    attempt = 0
    params: Mapping[str, Any] = MappingProxyType({})
    threads: int | None = None

    def report(self, value: float | Sequence[float], step: int) -> bool:
        """Do nothing."""
        return False

    def set(self, **attributes: Any) -> None:
        """Do nothing."""

    def should_stop(self) -> bool:
        """Return False: a single run has its own signal handlers."""
        return False


_current: Trial = NoTrial()


def current_trial() -> Trial:
    """Return the trial of this process."""
    return _current


def set_current_trial(trial: Trial) -> None:
    """Set the trial that `current_trial` returns; for workers."""
    global _current
    _current = trial
