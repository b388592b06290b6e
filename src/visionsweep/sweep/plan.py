"""`hydra.sweeper.dry_run=true`: what the sweep would do. Nothing is written and no trial runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from visionsweep.sweep.composition import shown
from visionsweep.sweep.retention import disk_space

if TYPE_CHECKING:
    from visionsweep.sweep.command import Sweep

_NUM_SHOWN = 5


def plan(sweep: "Sweep") -> list[str]:
    """Check every choice, and return the lines of the plan: space, first configurations, cost."""
    from visionsweep.sweep.command import create_engine
    from visionsweep.sweep.preflight import check_choices

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    engine = create_engine(sweep, Path(os.devnull))
    try:
        checked = check_choices(sweep, engine)
        num_slots = engine.num_slots
    finally:
        engine.close()
    settings = sweep.settings
    size = sweep.space.size()
    lines = [
        f"plan of {sweep.sweep_dir} (dry run: nothing is written, no trial runs)",
        "",
        "search space:",
    ]
    lines += [f"  {line}" for line in sweep.space.describe()] or ["  (nothing to search)"]
    lines += [f"  fixed: {shown(sweep.space.fixed_arguments())}"]
    if size is not None:
        lines.append(f"  {size} different configurations")
    lines += ["", *_first_configurations(sweep), "", "cost:", *_cost(sweep, num_slots, checked)]
    lines += [f"  sampler {_name(settings.sampler)}, pruner {settings.pruner_name}"]
    return lines


def _first_configurations(sweep: "Sweep") -> list[str]:
    from visionsweep.sweep.session import open_study

    count = min(_NUM_SHOWN, sweep.n_trials)
    if sweep.grid is not None:
        points = sweep.grid[:count]
        title = f"first {count} of {sweep.n_trials} configurations:"
    else:
        study = open_study(sweep, optuna.storages.InMemoryStorage())
        points = [study.trial(study.ask()).params for _ in range(count)]
        title = f"first {count} of {sweep.n_trials} configurations (later ones depend on results):"
    return [
        title,
        *(f"  #{i}  {shown(sweep.space.overrides(point))}" for i, point in enumerate(points)),
    ]


def _cost(sweep: "Sweep", num_slots: int, checked: list[Any]) -> list[str]:
    settings = sweep.settings
    runs = sweep.n_trials * settings.seeds
    lines = [
        f"  {sweep.n_trials} trials" + (f" of {settings.seeds} seeds" if settings.seeds > 1 else "")
    ]
    lines[0] += f", {num_slots} at a time"
    epochs = sweep.epochs()
    if epochs is not None:
        fewer = ", fewer with pruning" if settings.prunes_epochs or settings.prunes_seeds else ""
        lines.append(f"  {runs * epochs} epochs at most ({epochs} a run{fewer})")
    sizes = [
        item["checkpoint_bytes"]
        for item in checked
        if isinstance(item, dict) and "checkpoint_bytes" in item
    ]
    size = max(sizes, default=0) or (disk_space(sweep.sweep_dir) or 0)
    if size:
        kept = (
            sweep.n_trials
            if settings.keep_checkpoints is None
            else min(settings.keep_checkpoints, sweep.n_trials)
        )
        total = (kept * settings.seeds + num_slots) * size
        lines.append(
            f"  {total / 1e6:,.1f} MB on disk for weights: {kept} trials kept (hydra.sweeper.keep_checkpoints) and "
            f"{num_slots} running, up to {size / 1e6:,.2f} MB each"
        )
    return lines


def _name(config: dict[str, Any]) -> str:
    return str(config.get("_target_", "")).rpartition(".")[2]
