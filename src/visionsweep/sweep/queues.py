"""Which queue a sweep has."""

from visionsweep.sweep.budget import Budget
from visionsweep.sweep.budget_queue import BudgetQueue
from visionsweep.sweep.job_queue import JobQueue, Jobs
from visionsweep.sweep.settings import SweepSettings
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.thaw import Thaw
from visionsweep.sweep.thaw_queue import ThawQueue


def make_queue(
    study: SweepStudy, jobs: Jobs, n_trials: int, settings: SweepSettings, budget: Budget | None
) -> JobQueue:
    """Return the queue that the pruner of the study and a budget ask for."""
    pruner = study.mirror.pruner
    if not isinstance(pruner, Thaw):
        return JobQueue(study, jobs, n_trials, settings)
    if budget is None:
        return ThawQueue(study, jobs, n_trials, settings, pruner)
    return BudgetQueue(study, jobs, n_trials, settings, pruner, budget)
