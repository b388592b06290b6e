"""`hydra/launcher=workers`: jobs in warm processes.

Imported at every start of Hydra, so it imports little.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher

from visionsweep.rundir.layout import SWEEP_LOG

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from visionsweep.sweep.engines.local.pool import WorkersEngine
    from visionsweep.sweep.engines.local.resources import Slot


@dataclass
class WorkersLauncherConf:
    """Settings of the workers."""

    _target_: str = "hydra_plugins.visionsweep_sweep.launcher.WorkersLauncher"
    n_jobs: int | None = None  # workers; null: what the GPUs allow, else one per core up to 4
    gpus_per_trial: float = 1.0  # 0.5: two trials share a GPU; 0: none
    threads: int | None = None  # CPU threads per worker; null: an equal share of the cores
    max_trials_per_worker: int | None = None  # then a new process starts; null: no limit
    trial_timeout_seconds: float | None = None  # a trial that takes longer is killed
    memory_limit: Any = None  # of a worker and its child processes: 4GB, 512MiB, or bytes


ConfigStore.instance().store(
    group="hydra/launcher", name="workers", node=WorkersLauncherConf, provider="visionsweep"
)


class WorkersLauncher(Launcher):
    """Runs batches of jobs in parallel; a sweeper gets the engine itself from `create_engine`."""

    def __init__(
        self,
        n_jobs: int | None = None,
        gpus_per_trial: float = 1.0,
        threads: int | None = None,
        max_trials_per_worker: int | None = None,
        trial_timeout_seconds: float | None = None,
        memory_limit: Any = None,
    ) -> None:
        self._n_jobs = n_jobs
        self._gpus_per_trial = gpus_per_trial
        self._threads = threads
        self._max_trials_per_worker = max_trials_per_worker
        self._trial_timeout_seconds = trial_timeout_seconds
        self._memory_limit = memory_limit
        self._sweep: dict[str, Any] = {}
        self._engine: WorkersEngine | None = None  # stays warm between batches

    def setup(
        self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig"
    ) -> None:
        """Keep what the jobs need."""
        from visionsweep.streams import keep_streams

        keep_streams()
        self._sweep = {
            "hydra_context": hydra_context,
            "task_function": task_function,
            "config": config,
        }

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> "Sequence[JobReturn]":
        """Run a batch of jobs; return how each one ended, in order."""
        from hydra.core.utils import configure_log, setup_globals

        from visionsweep.sweep.engines.batch import run_batch

        setup_globals()
        context, hydra_config = self._sweep["hydra_context"], self._sweep["config"].hydra
        configure_log(
            hydra_config.hydra_logging,
            hydra_config.verbose,
            execution_whitelist=context.execution_whitelist,
        )
        sweep_dir = Path(str(hydra_config.sweep.dir)).absolute()
        slots = self._plan(self._n_jobs)
        if not job_overrides:
            return []
        if len(slots) > len(job_overrides):
            slots = self._plan(len(job_overrides))
        engine = self._engine
        if engine is None or engine.num_slots < len(slots):
            if engine is not None:
                engine.close()
            engine = self._engine = self._start(slots, sweep_dir / SWEEP_LOG, keep_job_returns=True)
            weakref.finalize(self, engine.close)
        try:
            return run_batch(engine, job_overrides, initial_job_idx)
        except BaseException:
            self._engine = None
            engine.close()
            raise

    def create_engine(
        self, n_jobs: int | None = None, log_path: Path | None = None
    ) -> "WorkersEngine":
        """Return an engine with started workers; the caller closes it.

        ``n_jobs`` overrides the launcher's. ``log_path`` gets the workers' output between jobs.
        """
        return self._start(self._plan(self._n_jobs if n_jobs is None else n_jobs), log_path)

    def _plan(self, n_jobs: int | None) -> "list[Slot]":
        from visionsweep.sweep.engines.local.resources import plan_slots

        return plan_slots(n_jobs, self._gpus_per_trial, self._threads)

    def _start(
        self, slots: "list[Slot]", log_path: Path | None, *, keep_job_returns: bool = False
    ) -> "WorkersEngine":
        from visionsweep.sweep.engines.local.pool import WorkersEngine
        from visionsweep.sweep.engines.local.resources import Limits

        limits = Limits(
            self._max_trials_per_worker, self._trial_timeout_seconds, self._memory_limit
        )
        return WorkersEngine(
            slots,
            **self._sweep,
            limits=limits,
            log_path=log_path,
            keep_job_returns=keep_job_returns,
        )
