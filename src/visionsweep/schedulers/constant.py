"""Constant lr after the warm-up."""

from visionsweep.schedulers.base import Scheduler


class ConstantScheduler(Scheduler):
    """Factor 1."""

    def factor(self, update: int) -> float:
        """Return 1."""
        return 1.0
