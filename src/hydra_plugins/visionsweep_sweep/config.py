"""Configs of `hydra/sweeper=optuna_async`, its sampler and its pruners.

Imported at every start of Hydra, so it imports little.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, TPESamplerConfig
from omegaconf import MISSING, OmegaConf

from visionsweep.program import fail
from visionsweep.rundir.layout import CHECKPOINTS


@dataclass
class AsyncTPESamplerConfig(TPESamplerConfig):
    """TPE for concurrent trials: options of Optuna that upstream's `tpe` leaves off."""

    multivariate: bool = True
    group: bool = True  # for conditional parameters
    constant_liar: bool = True  # stays away from running trials


@dataclass
class NoPrunerConfig:
    """Every trial runs to its end."""

    _target_: str = "optuna.pruners.NopPruner"


@dataclass
class ASHAPrunerConfig:
    """Asynchronous successive halving (arXiv 1810.05934), the variant that stops without pausing.

    At epoch min_resource * reduction_factor^k, the best 1 / reduction_factor of the trials so far
    continue.
    """

    _target_: str = "optuna.pruners.SuccessiveHalvingPruner"
    min_resource: int = 1
    reduction_factor: int = 3
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0


@dataclass
class HyperbandPrunerConfig:
    """Successive halvings with several first rungs (arXiv 1603.06560); for at least 40 trials."""

    _target_: str = "optuna.pruners.HyperbandPruner"
    min_resource: int = 1
    max_resource: Any = "auto"  # epochs of a full trial; auto: those of the first complete one
    reduction_factor: int = 3
    bootstrap_count: int = 0


@dataclass
class MedianPrunerConfig:
    """Ends a trial whose best value is worse than the median of the others at the same epoch."""

    _target_: str = "optuna.pruners.MedianPruner"
    n_startup_trials: int = 5
    n_warmup_steps: int = 2  # steps count from 1: the first epoch never prunes
    interval_steps: int = 1
    n_min_trials: int = 1


@dataclass
class PatientPrunerConfig:
    """Ends a trial after `patience` epochs without improvement; a wrapped pruner must agree."""

    _target_: str = "optuna.pruners.PatientPruner"
    wrapped_pruner: Any = None
    patience: int = 3
    min_delta: float = 0.0


@dataclass
class WilcoxonPrunerConfig:
    """Ends a trial between seeds if it is significantly worse than the best; needs seeds >= 3."""

    _target_: str = "optuna.pruners.WilcoxonPruner"
    p_threshold: float = 0.1
    n_startup_steps: int = 2


@dataclass
class ThawConfig:
    """Pauses a trial while another one promises more; nothing that was trained is lost."""

    _target_: str = "visionsweep.sweep.thaw.Thaw"
    screen: int = 8  # configurations that get an epoch before one of them gets a second
    new_every: int = 3  # after that, every so many epochs a new configuration
    slope: float = 1.0  # epochs for which a trial is expected to gain as much as in its last


@dataclass
class OptunaAsyncSweeperConf(OptunaSweeperConf):
    """Upstream's keys, and those of an asynchronous sweep that resumes after a crash."""

    _target_: str = "hydra_plugins.visionsweep_sweep.sweeper.OptunaAsyncSweeper"
    defaults: list[Any] = field(
        default_factory=lambda: [{"sampler": "tpe_async"}, {"pruner": "none"}]
    )

    pruner: Any = MISSING
    # With several objectives, a trial ends early if the pruner finds it losing ...
    # first_objective: ... by the first objective. dominated: ... and another trial was also at
    # least as good in every objective at the same epoch, and better in one.
    prune_by: Literal["first_objective", "dominated"] = "first_objective"
    # Resolved before Hydra creates the sweeper: a config for `optuna` may name that one's class.
    only_target: str = "${visionsweep.only_target:${._target_}}"

    # Total number of trials in the study, also after a resume. null: 20, or the whole grid.
    n_trials: int | None = None  # type: ignore[assignment]
    # Concurrent trials. null: hydra.launcher.n_jobs.
    n_jobs: int | None = None  # type: ignore[assignment]
    # The sweep ends if more than this fraction of its trials failed; checked from the 10th on.
    # 0: it ends with the first failure.
    max_failure_rate: float = 0.5
    # key: right side of an override, or {space: ..., when: 'key=value[,value]'}.
    # zip: {key: [values], key: [values]}, keys that move together; or a list of such groups.
    params: dict[str, Any] | None = field(default_factory=lambda: {"zip": None})
    # Like params, but ignored if the command line sweeps over anything.
    default_params: dict[str, Any] | None = None
    # null: SQLite in the sweep's directory.
    storage: Any | None = None

    # How often a trial that lost its worker or ran out of memory resumes from its checkpoint.
    retries: int = 2
    # Run failed trials again, with their numbers, parameters and directories.
    rerun_failed: bool = False
    # A trial's value is the mean over at most this many seeds: seed_key = base, base + 1, ...
    seeds: int = 1
    # contenders: every trial runs one seed, then those that may be the best run more, one by one.
    # all: every trial runs all of them. null: contenders, where that can be.
    seeds_for: Literal["contenders", "all"] | None = None
    seed_key: str = "seed"
    # A trial is this many runs, which differ in the images that they validate on (fold_key = 0, 1,
    # ... and folds_key = how many). Its value is that of the pooled predictions for all images.
    folds: int = 1
    fold_key: str | None = None  # null: the app has no folds
    folds_key: str | None = None

    # auto: try first what did well with such networks on other data sets, as far as the space has
    # it: at most 6 configurations, and no more than a third of n_trials. none: nothing.
    portfolio: Literal["auto", "none"] = "none"
    # Configurations to try first: a list of {key: value}. Missing keys are drawn.
    enqueue: Any = None
    # Directory of another sweep (multirun/STUDY), or a list of them, whose complete trials inform
    # the sampler.
    warm_start: Any = None

    # Directory of another sweep (multirun/STUDY) whose best configurations run again, with the
    # baseline, on `seeds` new seeds; the sweep ends as soon as the answer is clear.
    confirm: str | None = None
    confirm_top: int = 3  # this many of them
    # Dotted path of a function that gets the config of a finished job and scores it on data that
    # nothing was chosen on; called once, for the confirmed configuration.
    evaluate: str | None = None

    # Time that the study may take, with its start-up. The search thaws (pruner: thaw) and ends in
    # time, with its best trial trained to its end. n_trials is a limit only if it is typed.
    budget_minutes: float | None = None
    # Reasons to end before n_trials.
    timeout_seconds: float | None = None
    max_trials_without_improvement: int | None = None
    target_value: float | None = None

    # Keep the weights of this many best trials. null: of all.
    keep_checkpoints: int | None = 5
    # Folder in a trial's directory that holds nothing but weights.
    checkpoint_folder: str = CHECKPOINTS

    # Dotted path of a function that raises for a bad config of a job; called before trial 0.
    check: str | None = None
    # Print the plan and exit.
    dry_run: bool = False

    # If the command differs from the stored sweep: refuse | extend.
    on_change: Literal["refuse", "extend"] = "refuse"
    # Config keys, including all below them, that may differ from the stored sweep.
    may_change: list[str] = field(default_factory=list)

    # The app's own names of these keys. null: it has none.
    study_key: str | None = None  # name of the sweep: KEY=NAME is enough to resume it
    threads_key: str | None = None  # CPU threads of a job
    epochs_key: str | None = None  # epochs of a full trial
    metric_key: str | None = None  # name of the objective
    # Overrides that a single run does not accept.
    multirun_keys: list[str] = field(default_factory=list)


def _only_target(target: str) -> str:
    """Return `target` if it is our sweeper; otherwise end the process with one line."""
    if target != OptunaAsyncSweeperConf._target_:
        fail(
            f"hydra.sweeper._target_: hydra/sweeper=optuna_async cannot run {target}. Remove the "
            "line `_target_: ...` from your config of the sweeper"
        )
    return target


OmegaConf.register_resolver("visionsweep.only_target", _only_target, replace=True)

_GROUP = "hydra/sweeper"
for _group, _name, _node in (
    (_GROUP, "optuna_async", OptunaAsyncSweeperConf),
    (f"{_GROUP}/sampler", "tpe_async", AsyncTPESamplerConfig),
    (f"{_GROUP}/pruner", "none", NoPrunerConfig),
    (f"{_GROUP}/pruner", "asha", ASHAPrunerConfig),
    (f"{_GROUP}/pruner", "hyperband", HyperbandPrunerConfig),
    (f"{_GROUP}/pruner", "median", MedianPrunerConfig),
    (f"{_GROUP}/pruner", "patient", PatientPrunerConfig),
    (f"{_GROUP}/pruner", "wilcoxon", WilcoxonPrunerConfig),
    (f"{_GROUP}/pruner", "thaw", ThawConfig),
):
    ConfigStore.instance().store(group=_group, name=_name, node=_node, provider="visionsweep")
