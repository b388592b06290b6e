"""When a sweep ends before its last trial."""

from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.tally import Tally

FAILURES_COUNT_FROM = 10  # trials


def time_is_over(settings: SweepSettings, elapsed_seconds: float) -> str | None:
    """Return the time limit if it ends the sweep, or None."""
    if settings.timeout_seconds is not None and elapsed_seconds > settings.timeout_seconds:
        return f"hydra.sweeper.timeout_seconds={settings.timeout_seconds:g} is over"
    return None


def is_good_enough(settings: SweepSettings, tally: Tally) -> str | None:
    """Return the limit on values that ends the sweep, or None."""
    best = tally.best
    if best is None:
        return None
    assert best.values is not None
    target, patience = settings.target_value, settings.max_trials_without_improvement
    if target is not None:
        sign = 1 if settings.directions[0] == "maximize" else -1
        if sign * best.values[0] >= sign * target:
            return f"hydra.sweeper.target_value={target:g} is reached"
    if patience is not None:
        later = sum(n > best.number and r.state != "failed" for n, r in tally.records.items())
        if later >= patience:
            return (
                f"no better trial among the last {later} "
                f"(hydra.sweeper.max_trials_without_improvement={patience})"
            )
    return None


def too_many_failures(settings: SweepSettings, tally: Tally) -> str | None:
    """Return what exceeds `max_failure_rate`, or None.

    A rate is counted from the tenth trial on. 0 means that no trial may fail.
    """
    ended, failed = len(tally.records), tally.counts["failed"]
    counts_from = FAILURES_COUNT_FROM if settings.max_failure_rate else 1
    if ended < counts_from or failed / ended <= settings.max_failure_rate:
        return None
    rate = f"{settings.max_failure_rate:g}"
    return f"{failed} of {ended} trials failed (hydra.sweeper.max_failure_rate={rate})"
