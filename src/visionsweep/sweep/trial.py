"""The trial as the task function sees it: where to report, whether to stop, what it may use.

A task function works the same outside of a sweep: `current_trial()` then gives a trial that never prunes.

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

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol


class TrialPruned(Exception):  # noqa: N818 - a decision, not an error
    """Raised by the task function to end a trial that `report` said is losing."""


class TrialStopped(Exception):  # noqa: N818 - the user's wish, not an error
    """Raised by the task function after `should_stop()` turned true; the trial can go on later."""


class Trial(Protocol):
    """What a running job knows of its trial."""

    @property
    def number(self) -> int | None:
        """The trial's number, which is the job's; None outside of a sweep."""

    @property
    def attempt(self) -> int:
        """0 for the first start; more where the trial was started before and its directory may hold a checkpoint."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The searched parameters of the trial, in the order of the search space; empty outside a sweep."""

    @property
    def threads(self) -> int | None:
        """CPU threads that this worker may use; None: all (outside of a worker)."""

    def report(self, value: float, step: int) -> bool:
        """Tell the objective reached by `step` (an epoch, from 1); return whether to raise `TrialPruned`."""

    def should_stop(self) -> bool:
        """Return whether the user asked the sweep to end: save a checkpoint and raise `TrialStopped`."""


class NoTrial:
    """The trial of a job outside of a sweep: nobody listens, nothing is pruned."""

    number: int | None = None
    attempt = 0
    params: Mapping[str, Any] = MappingProxyType({})
    threads: int | None = None

    def report(self, value: float, step: int) -> bool:
        """Do nothing."""
        return False

    def should_stop(self) -> bool:
        """Return False: a single run has its own signal handlers."""
        return False


_current: Trial = NoTrial()


def current_trial() -> Trial:
    """Return the trial that this process works on."""
    return _current


def set_current_trial(trial: Trial) -> None:
    """Make `trial` the one that `current_trial` returns; for workers."""
    global _current
    _current = trial
