"""The settings of `hydra/sweeper=optuna_async`, checked."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from visionsweep.errors import ConfigError
from visionsweep.sweep.samplers import is_grid
from visionsweep.text import counted

DEFAULT_TRIALS = 20
_KEY = "hydra.sweeper"
_NOT_SETTINGS = ("_target_", "only_target", "direction")

Direction = Literal["maximize", "minimize"]
PruneBy = Literal["first_objective", "dominated"]
SeedsFor = Literal["contenders", "all"]


@dataclass(frozen=True)
class SweepSettings:
    """`hydra.sweeper`, resolved; `hydra_plugins.visionsweep_sweep.config` explains each key."""

    sampler: dict[str, Any]
    pruner: dict[str, Any] | None
    prune_by: PruneBy
    directions: tuple[Direction, ...]
    storage: str | None
    study_name: str | None
    n_trials: int | None
    n_jobs: int | None
    max_failure_rate: float
    params: dict[str, Any] | None
    default_params: dict[str, Any] | None
    custom_search_space: str | None
    retries: int
    rerun_failed: bool
    seeds: int
    seeds_for: SeedsFor | None
    seed_key: str
    folds: int
    fold_key: str | None
    folds_key: str | None
    portfolio: Literal["auto", "none"]
    enqueue: list[dict[str, Any]]
    warm_start: tuple[str, ...]
    confirm: str | None
    confirm_top: int
    evaluate: str | None
    budget_minutes: float | None
    timeout_seconds: float | None
    max_trials_without_improvement: int | None
    target_value: float | None
    keep_checkpoints: int | None
    checkpoint_folder: str
    check: str | None
    dry_run: bool
    on_change: Literal["refuse", "extend"]
    may_change: tuple[str, ...]
    study_key: str | None
    threads_key: str | None
    epochs_key: str | None
    metric_key: str | None
    multirun_keys: tuple[str, ...]

    @property
    def is_grid(self) -> bool:
        """Whether the sweep enumerates a plain grid."""
        return is_grid(self.sampler)

    @property
    def pruner_name(self) -> str:
        """The pruner's class name; NopPruner without one."""
        return str((self.pruner or {}).get("_target_", "NopPruner")).rpartition(".")[2]

    @property
    def prunes_epochs(self) -> bool:
        """Whether a trial may end after an epoch."""
        return self.pruner_name not in ("NopPruner", "WilcoxonPruner")

    @property
    def prunes_runs(self) -> bool:
        """Whether a trial may end between two of its runs."""
        return self.pruner_name == "WilcoxonPruner"

    @property
    def num_runs(self) -> int:
        """Runs per trial, one per seed and fold; with `races` at most so many."""
        return self.seeds * self.folds

    @property
    def races(self) -> bool:
        """Whether only trials that may be the best get more than one seed."""
        return self.seeds > 1 and self.seeds_for != "all" and self.needs_all_seeds is None

    @property
    def needs_all_seeds(self) -> str | None:
        """Why every trial needs all of its seeds; None if it does not."""
        if self.confirm is not None:
            return "a confirmation has its own rule for seeds"
        if len(self.directions) > 1:
            return "of several objectives there is no single best trial"
        return "wilcoxon compares trials seed by seed" if self.prunes_runs else None

    @property
    def runs_in_a_row(self) -> int:
        """Runs of a trial until something is decided about it: its folds, or all."""
        return self.folds if self.races else self.num_runs

    def seed_and_fold(self, index: int) -> tuple[int | None, int | None]:
        """Return which seed and fold the run `index` of a trial has; None: there is only one.

        All folds of a seed come before the next seed.
        """
        seed, fold = divmod(index, self.folds)
        return seed if self.seeds > 1 else None, fold if self.folds > 1 else None

    @property
    def free_keys(self) -> tuple[str, ...]:
        """Config keys that may differ when a sweep is resumed."""
        return (*self.may_change, *([self.study_key] if self.study_key else []))

    def sampler_seed(self, default: int | None = None) -> int:
        """Return the sampler's seed; without one in the config the default, or a random one."""
        seed = self.sampler.get("seed")
        if seed is None:
            return secrets.randbelow(2**31) if default is None else default
        return int(seed)

    def identity(self) -> dict[str, Any]:
        """Return what must not change during a sweep, besides space, config and storage."""
        return {
            "sampler": self.sampler,
            "pruner": self.pruner,
            # An earlier version stored neither this, nor seeds_for, nor folds.
            **({"prune_by": self.prune_by} if self.prune_by != "first_objective" else {}),
            "direction": list(self.directions),
            "study_name": self.study_name,
            "custom_search_space": self.custom_search_space,
            "seeds": self.seeds,
            **({"seeds_for": "contenders"} if self.races else {}),
            "seed_key": self.seed_key,
            **({"folds": self.folds} if self.folds > 1 else {}),
            "enqueue": self.enqueue,
            # one as text, as an earlier version stored it
            "warm_start": list(found)
            if len(found := self.warm_start) > 1
            else "".join(found) or None,
        }


def read_settings(node: dict[str, Any]) -> SweepSettings:
    """Return the settings of the resolved `hydra.sweeper`. Raises `ConfigError` for bad values."""
    values = {key: value for key, value in node.items() if key not in _NOT_SETTINGS}
    values |= {
        "directions": _directions(node["direction"]),
        "enqueue": _list_of_mappings(node["enqueue"], "enqueue"),
        "warm_start": _directories(node["warm_start"], "warm_start"),
        "may_change": tuple(node["may_change"]),
        "multirun_keys": tuple(node["multirun_keys"]),
    }
    settings = SweepSettings(**values)
    for minimum, expected, names in (
        (1, "at least 1", ("n_trials", "n_jobs", "max_trials_without_improvement")),
        (1, "at least 1", ("seeds", "folds", "confirm_top")),
        (0, "0 or more", ("retries", "keep_checkpoints")),
    ):
        for name in names:
            value = getattr(settings, name)
            if value is not None and value < minimum:
                raise ConfigError(f"{_KEY}.{name}: expected {expected}, got {value}")
    if settings.timeout_seconds is not None and settings.timeout_seconds <= 0:
        raise ConfigError(
            f"{_KEY}.timeout_seconds: expected more than 0, got {settings.timeout_seconds}"
        )
    if not 0 <= settings.max_failure_rate <= 1:
        raise ConfigError(
            f"{_KEY}.max_failure_rate: expected a fraction in [0, 1], "
            f"got {settings.max_failure_rate}"
        )
    if settings.storage is not None and not isinstance(settings.storage, str):
        raise ConfigError(f"{_KEY}.storage: expected an Optuna URL or null, got {settings.storage}")
    _check_together(settings)
    return settings


def _check_together(settings: SweepSettings) -> None:
    count = len(settings.directions)
    if count > 1:
        for name in ("target_value", "max_trials_without_improvement"):
            if getattr(settings, name) is not None:
                raise ConfigError(
                    f"{_KEY}.{name}: has no meaning with several objectives; set it to null"
                )
        if settings.pruner_name == "Thaw":
            raise ConfigError(
                f"{_KEY}.pruner: thaw trains what promises the best value of one objective, but "
                f"the sweep has {count}; set hydra/sweeper/pruner=asha"
            )
    if settings.prune_by == "dominated":
        if count == 1:
            raise ConfigError(
                f"{_KEY}.prune_by: dominated compares several objectives, but the sweep has one; "
                "remove it"
            )
        if not settings.prunes_epochs:
            raise ConfigError(
                f"{_KEY}.prune_by: dominated needs a pruner that compares epochs, such as "
                f"hydra/sweeper/pruner=asha; {settings.pruner_name} does not"
            )
    if settings.seeds_for == "contenders":
        reason = settings.needs_all_seeds
        if settings.seeds == 1:
            reason = f"there is one seed ({_KEY}.seeds=1)"
        if reason is not None:
            raise ConfigError(
                f"{_KEY}.seeds_for: contenders has no effect here: {reason}; remove it"
            )
    for name in ("enqueue", "warm_start"):
        if settings.is_grid and getattr(settings, name):
            raise ConfigError(
                f"{_KEY}.{name}: has no effect on a grid, which runs whole and in order; remove it"
            )
    if settings.folds > 1 and (settings.fold_key is None or settings.folds_key is None):
        raise ConfigError(
            f"{_KEY}.folds: this app has no folds; set {_KEY}.fold_key and {_KEY}.folds_key to its "
            f"keys of the fold and their number, or {_KEY}.folds=1"
        )
    if settings.prunes_runs and settings.num_runs < 3:
        raise ConfigError(
            f"{_KEY}.pruner: wilcoxon compares trials run by run and needs at least 3 per trial, "
            f"got {_KEY}.seeds={settings.seeds} and {_KEY}.folds={settings.folds}; set one of them "
            "to 3, or hydra/sweeper/pruner=median"
        )


def report_problem(others: Sequence[float], settings: SweepSettings) -> str | None:
    """Return what is wrong with the number of `others` that a trial reported, or None."""
    expected = len(settings.directions) - 1
    if len(others) == expected or (not others and settings.prune_by == "first_objective"):
        return None
    return (
        f"expected a report of {counted(expected + 1, 'value')}, one per objective, "
        f"got {len(others) + 1}"
    )


def _directions(value: Any) -> tuple[Direction, ...]:
    given = value if isinstance(value, list) else [value]
    names: list[Any] = [getattr(direction, "name", direction) for direction in given]
    if not names or any(name not in ("maximize", "minimize") for name in names):
        raise ConfigError(
            f"{_KEY}.direction: expected maximize or minimize, or a list of them, got {value}"
        )
    return tuple(names)


def _directories(value: Any, name: str) -> tuple[str, ...]:
    given = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, str) and item for item in given):
        raise ConfigError(
            f"{_KEY}.{name}: expected the directory of a sweep (multirun/STUDY) or a list of them, "
            f"got {value}"
        )
    for item in given:
        if sum(os.path.normpath(item) == os.path.normpath(other) for other in given) > 1:
            raise ConfigError(f"{_KEY}.{name}: {item} is named twice; remove one")
    return tuple(given)


def _list_of_mappings(value: Any, name: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError(f"{_KEY}.{name}: expected a list of {{key: value}}, got {value}")
    return value
