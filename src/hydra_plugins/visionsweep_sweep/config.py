"""The config of `hydra/sweeper=optuna_async`, of its sampler and its pruners. Imported at every start of Hydra."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, TPESamplerConfig
from omegaconf import MISSING


@dataclass
class AsyncTPESamplerConfig(TPESamplerConfig):
    """TPE for trials that run at the same time: Optuna's own defaults, which upstream's `tpe` switches off."""

    multivariate: bool = True
    group: bool = True  # conditional parameters
    constant_liar: bool = True  # stay away from what is running


@dataclass
class NoPrunerConfig:
    """Every trial runs to its end."""

    _target_: str = "optuna.pruners.NopPruner"


@dataclass
class ASHAPrunerConfig:
    """Asynchronous successive halving (arXiv 1810.05934), the variant that stops and never pauses.

    At epoch min_resource x reduction_factor^k only the best 1 / reduction_factor of those that came so far goes on.
    """

    _target_: str = "optuna.pruners.SuccessiveHalvingPruner"
    min_resource: int = 1
    reduction_factor: int = 3
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0


@dataclass
class HyperbandPrunerConfig:
    """Several successive halvings with different first rungs (arXiv 1603.06560); for 40 trials or more."""

    _target_: str = "optuna.pruners.HyperbandPruner"
    min_resource: int = 1
    max_resource: Any = "auto"  # epochs of a whole trial; auto waits for the first complete one
    reduction_factor: int = 3
    bootstrap_count: int = 0


@dataclass
class MedianPrunerConfig:
    """Ends a trial whose best is worse than the median of the others at the same epoch."""

    _target_: str = "optuna.pruners.MedianPruner"
    n_startup_trials: int = 5
    n_warmup_steps: int = 2  # steps count from 1: the first epoch is spared
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class PatientPrunerConfig:
    """Ends a trial that has not got better for `patience` epochs; with a wrapped pruner, only if that one agrees."""

    _target_: str = "optuna.pruners.PatientPruner"
    wrapped_pruner: Any = None
    patience: int = 3
    min_delta: float = 0.0


@dataclass
class WilcoxonPrunerConfig:
    """Ends a trial between two seeds when it is significantly worse than the best one; for hydra.sweeper.seeds >= 3."""

    _target_: str = "optuna.pruners.WilcoxonPruner"
    p_threshold: float = 0.1
    n_startup_steps: int = 2


@dataclass
class OptunaAsyncSweeperConf(OptunaSweeperConf):
    """`hydra/sweeper=optuna_async`: upstream's keys, and those of an asynchronous sweep that goes on after a crash."""

    _target_: str = "hydra_plugins.visionsweep_sweep.sweeper.OptunaAsyncSweeper"
    defaults: list[Any] = field(
        default_factory=lambda: [{"sampler": "tpe_async"}, {"pruner": "none"}]
    )

    pruner: Any = MISSING

    # Total number of trials over every run of the command, finished in any way. null: 20, or the whole of a grid.
    n_trials: int | None = None  # type: ignore[assignment]
    # Trials at the same time; null: hydra.launcher.n_jobs.
    n_jobs: int | None = None  # type: ignore[assignment]
    # The sweep ends when more than this share of its trials failed; counted from the 10th one on.
    max_failure_rate: float = 0.5
    # A value is an override's right side, or {space: ..., when: 'key=value[,value]'}.
    params: dict[str, Any] | None = None
    # Like params, but dropped as soon as the command line sweeps over anything.
    default_params: dict[str, Any] | None = None
    # null: SQLite in the sweep's directory.
    storage: Any | None = None

    # A trial that lost its worker or ran out of memory starts again from its checkpoint, so many times at most.
    retries: int = 2
    # A trial's value is the mean over so many seeds: seed_key = base, base + 1, ...
    seeds: int = 1
    seed_key: str = "seed"

    # Good configurations to begin with: a list of {key: value}; what is missing is drawn.
    enqueue: Any = None
    # Another sweep's directory (multirun/STUDY): its complete trials inform the sampler.
    warm_start: str | None = None

    # When to end before n_trials.
    timeout_seconds: float | None = None
    max_trials_without_improvement: int | None = None
    target_value: float | None = None

    # Weights are kept of so many best trials; null: of all.
    keep_checkpoints: int | None = 5
    # Folder below a trial's directory that holds nothing but weights.
    checkpoint_folder: str = "checkpoints"

    # Dotted path of a function that takes the job's config and raises for a bad one: called before trial 0.
    check: str | None = None
    # Print what would run, and end.
    dry_run: bool = False

    # What to do where the command differs from the stored sweep: refuse | extend.
    on_change: Literal["refuse", "extend"] = "refuse"
    # Config keys (with all below them) that may differ when a stored sweep is taken up.
    may_change: list[str] = field(default_factory=list)

    # What the app calls these; null: it has no such key.
    study_key: str | None = None  # names the sweep: KEY=NAME is all that is needed to take it up
    threads_key: str | None = None  # number of CPU threads of a job
    epochs_key: str | None = None  # epochs of a whole trial
    metric_key: str | None = None  # name of the objective
    multirun_keys: list[str] = field(
        default_factory=list
    )  # overrides that a single run does not take


def register() -> None:
    """Put the configs into Hydra's store."""
    store = ConfigStore.instance().store
    provider = "visionsweep"
    store(
        group="hydra/sweeper", name="optuna_async", node=OptunaAsyncSweeperConf, provider=provider
    )
    store(
        group="hydra/sweeper/sampler",
        name="tpe_async",
        node=AsyncTPESamplerConfig,
        provider=provider,
    )
    for name, node in {
        "none": NoPrunerConfig,
        "asha": ASHAPrunerConfig,
        "hyperband": HyperbandPrunerConfig,
        "median": MedianPrunerConfig,
        "patient": PatientPrunerConfig,
        "wilcoxon": WilcoxonPrunerConfig,
    }.items():
        store(group="hydra/sweeper/pruner", name=name, node=node, provider=provider)


register()
