"""A trial as the results, lines and summary of a sweep see it, whatever stores it."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from visionsweep.config.paths import shown
from visionsweep.rundir.layout import TRIAL_ERROR
from visionsweep.text import counted, objective_text


@dataclass(frozen=True)
class TrialRecord:
    """A trial that is running or has ended."""

    number: int
    state: Literal["complete", "pruned", "failed", "running"]
    # The objectives; of a pruned trial the last value it reported. None: there is none.
    values: tuple[float, ...] | None
    params: dict[str, Any]  # active parameters only, as drawn
    start: float | None  # time.time(); None: not started
    end: float | None
    epochs: int | None  # the last step it reported; with several runs their sum
    directory: str  # relative to the sweep's
    seconds: float | None = None  # that its runs took, without pauses; None: not started
    error: str | None = None  # one line
    duplicate_of: int | None = None  # the trial whose value it has, without a run of its own
    seed_values: tuple[float, ...] = ()  # first objective per seed, with several seeds
    has_all_seeds: bool = True  # as many as the sweep allows
    fold_values: tuple[float, ...] = ()  # first objective per fold, seed by seed, with folds
    retries: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)  # what the task attached

    @property
    def seed_std(self) -> float | None:
        """The standard deviation over the seeds (n - 1); None with fewer than two."""
        return statistics.stdev(self.seed_values) if len(self.seed_values) > 1 else None

    @property
    def fold_mean(self) -> float | None:
        """The mean over the folds; None without them. Not the value, which is of all images."""
        return statistics.fmean(self.fold_values) if self.fold_values else None

    @property
    def fold_std(self) -> float | None:
        """The standard deviation over the folds (n - 1); None with fewer than two."""
        return statistics.stdev(self.fold_values) if len(self.fold_values) > 1 else None

    def values_text(self, mark: str = "") -> str:
        """Return the objectives, their spread over seeds and folds; `mark` follows the values."""
        text = " / ".join(map(objective_text, self.values)) if self.values else "-"
        if self.seed_std is not None:
            mark += f" +- {self.seed_std:.2g} over {len(self.seed_values)} seeds"
        elif self.seed_values:
            mark += " (1 seed)"
        if self.fold_mean is not None:
            spread = "" if self.fold_std is None else f" +- {self.fold_std:.2g}"
            folds = counted(len(self.fold_values), "fold")
            mark += f" (mean of {folds} {objective_text(self.fold_mean)}{spread})"
        return text + mark

    def failure_text(self, sweep_dir: Path) -> str:
        """Return why the trial failed, and the file with the traceback."""
        file = shown(sweep_dir / self.directory / TRIAL_ERROR)
        attempts = f", {self.retries + 1} attempts" if self.retries else ""
        return f"{self.error or 'unknown error'} ({file}{attempts})"
