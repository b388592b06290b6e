"""`hydra.sweeper.dry_run=true`: the plan of a sweep. Writes nothing, runs no trial."""

import os
from pathlib import Path
from typing import Any

import optuna

from visionsweep.sweep.budget import NO_LIMIT
from visionsweep.sweep.composition import shown
from visionsweep.sweep.definition import Sweep
from visionsweep.sweep.launcher import create_engine
from visionsweep.sweep.open_study import open_study
from visionsweep.sweep.portfolio import portfolio_rule
from visionsweep.sweep.preflight import check_choices
from visionsweep.sweep.repeats import ENTRANTS, seeds_rule
from visionsweep.sweep.retention import disk_space
from visionsweep.sweep.several_objectives import pruning_rule
from visionsweep.text import counted

_NUM_SHOWN = 5


def plan(sweep: Sweep) -> list[str]:
    """Check every choice; return the lines of the plan: space, first configurations, cost."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    engine = create_engine(sweep, Path(os.devnull))
    try:
        checked = check_choices(sweep, engine)
        num_slots = engine.num_slots
    finally:
        engine.close()
    settings, size = sweep.settings, sweep.space.size()
    sampler = str(settings.sampler.get("_target_", "")).rpartition(".")[2]
    rule = pruning_rule(settings, sweep.composer.value_of(settings.metric_key))
    first = portfolio_rule(sweep.portfolio)
    return [
        f"plan of {sweep.sweep_dir} (dry run: writes nothing, runs no trial)",
        "",
        "search space:",
        *([f"  {line}" for line in sweep.space.describe()] or ["  (nothing to search)"]),
        f"  fixed: {shown(sweep.space.fixed_arguments())}",
        *([] if size is None else [f"  {counted(size, 'configuration')}"]),
        "",
        *_first_configurations(sweep),
        "",
        "cost:",
        *_cost(sweep, num_slots, list(checked.values())),
        f"  sampler {sampler}, pruner {settings.pruner_name}",
        *(f"  {line}" for line in (first, rule, seeds_rule(settings)) if line is not None),
    ]


def _first_configurations(sweep: Sweep) -> list[str]:
    count = min(_NUM_SHOWN, sweep.n_trials)
    all_ = f" of {counted(sweep.n_trials, 'configuration')}"
    title = f"first {count}{' configurations' if sweep.n_trials >= NO_LIMIT else all_}"
    if sweep.grid is not None:
        points = sweep.grid[:count]
    else:
        title += " (later ones depend on results)"
        study = open_study(sweep, optuna.storages.InMemoryStorage())
        points = [study.params(study.ask()) for _ in range(count)]
    overrides = [shown(sweep.space.overrides(point)) for point in points]
    return [f"{title}:", *(f"  #{i}  {line}" for i, line in enumerate(overrides))]


def _cost(sweep: Sweep, num_slots: int, checked: list[Any]) -> list[str]:
    settings = sweep.settings
    most = "at most " if settings.races else ""
    parts = [f"{most}{settings.seeds} seeds"] * (settings.seeds > 1)
    parts += [f"{settings.folds} folds"] * (settings.folds > 1)
    runs = f" of {' x '.join(parts)}" if parts else ""
    is_limited = sweep.n_trials < NO_LIMIT
    trials = counted(sweep.n_trials, "trial") if is_limited else "trials"
    lines = [f"  {trials}{runs}, {num_slots} at a time"]
    if settings.budget_minutes is not None:
        lines.append(
            f"  {settings.budget_minutes:g} minutes (hydra.sweeper.budget_minutes); how many "
            "trials that allows is said as soon as the first epochs have been timed"
        )
    epochs = sweep.epochs()
    if epochs is not None and is_limited:
        fewer = ", fewer with pruning" if settings.prunes_epochs or settings.prunes_runs else ""
        num_runs = sweep.n_trials * settings.num_runs
        if settings.races:
            seeds = sweep.n_trials + min(sweep.n_trials, ENTRANTS) * (settings.seeds - 1)
            num_runs = seeds * settings.folds
        lines.append(f"  at most {counted(num_runs * epochs, 'epoch')} ({epochs} per run{fewer})")
    results = [result for result in checked if isinstance(result, dict)]
    size = max((result.get("checkpoint_bytes", 0) for result in results), default=0)
    size = size or disk_space(sweep.sweep_dir) or 0
    if size:
        keep = settings.keep_checkpoints
        if settings.races and keep:
            keep = max(keep, ENTRANTS)
        kept = sweep.n_trials if keep is None else min(keep, sweep.n_trials)
        total = (kept * settings.num_runs + num_slots) * size
        lines.append(
            f"  {total / 1e6:,.1f} MB on disk for weights, up to {size / 1e6:,.2f} MB per run: "
            f"{kept} trials kept (hydra.sweeper.keep_checkpoints) and {num_slots} running"
        )
    return lines
