"""The files of a sweep's results. Each is replaced as a whole, also while trials are running.

`optimization_results.yaml` has hydra-optuna-sweeper's format; `trials.csv` is a plain table.
"""

import csv
import functools
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import (
    BEST_TRIAL,
    OPTIMIZATION_RESULTS,
    PRESET,
    TRIALS,
    runs_of_trial,
)
from visionsweep.sweep.preset import preset_file
from visionsweep.sweep.ranking import best, pareto
from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.text import param_text

log = logging.getLogger(__name__)


def write_results(
    sweep_dir: Path,
    trials: Sequence[TrialRecord],
    directions: Sequence[str],
    *,
    overrides_of: Callable[[TrialRecord], Sequence[str]],
    is_group: Callable[[str], bool],
    program: str,
) -> None:
    """Write `trials.csv`; with a complete trial also the results, the preset, the link to the best.

    ``overrides_of`` gives all plain overrides of a trial's config, ``is_group`` tells a config
    group from a key, and ``program`` is what runs the preset.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    write_text(sweep_dir / TRIALS, trials_csv(trials, directions))
    chosen = best(trials, directions)
    if chosen is None:
        return
    _write_if_changed(sweep_dir / OPTIMIZATION_RESULTS, optimization_results(trials, directions))
    preset = preset_file(sweep_dir, chosen, overrides_of(chosen), is_group, program)
    _write_if_changed(sweep_dir / PRESET, preset)
    first_run = runs_of_trial(sweep_dir / chosen.directory)[0]
    replace_link(sweep_dir / BEST_TRIAL, str(first_run.relative_to(sweep_dir)))


def optimization_results(trials: Iterable[TrialRecord], directions: Sequence[str]) -> str:
    """Return the text of upstream's results file; at least one trial must be complete."""
    trials = list(trials)
    results: dict[str, Any] = {"name": "optuna"}
    if len(directions) > 1:
        front = pareto(trials, directions)
        results["solutions"] = [
            {"params": t.params, "values": list(t.values or ()), "trial": t.number} for t in front
        ]
    else:
        chosen = best(trials, directions)
        assert chosen is not None
        assert chosen.values is not None
        results |= {
            "best_params": chosen.params,
            "best_value": chosen.values[0],
            "best_trial": chosen.number,
        }
    return OmegaConf.to_yaml(OmegaConf.create(results))


def trials_csv(trials: Sequence[TrialRecord], directions: Sequence[str]) -> str:
    """Return the table: one row per trial, one column per parameter; an empty cell means none."""
    values = ["value"] if len(directions) == 1 else [f"value_{i}" for i in range(len(directions))]
    params = list(dict.fromkeys(key for trial in trials for key in trial.params))
    extras: dict[str, Callable[[TrialRecord], Any]] = {
        "duplicate_of": lambda trial: trial.duplicate_of,
        "seed_std": lambda trial: trial.seed_std,
        "seed_values": lambda trial: json.dumps(trial.seed_values) if trial.seed_values else None,
        "fold_mean": lambda trial: trial.fold_mean,
        "fold_std": lambda trial: trial.fold_std,
        "retries": lambda trial: trial.retries or None,
        "error": lambda trial: trial.error,
    }
    used = {k: v for k, v in extras.items() if any(v(trial) is not None for trial in trials)}
    attributes = list(dict.fromkeys(key for trial in trials for key in trial.attributes))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ["number", "state", *values, "start", "end", "epochs", "directory"]
    columns += [f"params.{key}" for key in params] + [f"user_attrs.{key}" for key in attributes]
    writer.writerow([*columns, *used])
    for trial in trials:
        given = [*(trial.values or ()), *[None] * len(values)][: len(values)]
        row = [trial.number, trial.state, *given, _local_time(trial.start), _local_time(trial.end)]
        row += [trial.epochs, trial.directory]
        row += [param_text(trial.params[key]) if key in trial.params else None for key in params]
        row += [
            param_text(trial.attributes[key]) if key in trial.attributes else None
            for key in attributes
        ]
        writer.writerow([*row, *(value_of(trial) for value_of in used.values())])
    return file.getvalue()


def replace_link(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, relative to its folder, in one step."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)  # of a process that was killed
    try:
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except OSError as error:  # a file system without links, or a folder of the user's of that name
        temporary.unlink(missing_ok=True)
        _warn_of_link(link, error.strerror, ". Move it away" if link.exists() else "")


@functools.cache  # once, not at each trial's end
def _warn_of_link(link: Path, reason: str, way_out: str) -> None:
    log.warning("%s: cannot link to the best trial (%s)%s", link, reason, way_out)


def _write_if_changed(path: Path, text: str) -> None:
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    write_text(path, text)


def _local_time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
