"""The files of a sweep's results, and which trial is the best. Each file is replaced as a whole, also while trials run.

Knows trials as `TrialRecord`, whatever stores them. The formats that other programs read: `optimization_results.yaml`
is hydra-optuna-sweeper's, `trials.csv` a plain table, `experiment/best.yaml` a Hydra preset.
"""

import csv
import io
import logging
import os
import re
import shlex
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.rundir.atomic import write_text
from visionsweep.sweep.ranking import best, pareto
from visionsweep.text import param_text

log = logging.getLogger(__name__)

RESULTS = "optimization_results.yaml"
TABLE = "trials.csv"
LINK = "best"
PRESET_GROUP = (
    "experiment"  # the config group of presets, and the folder that a search path finds it in
)
PRESET = f"{PRESET_GROUP}/{LINK}.yaml"

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial that runs or has ended."""

    number: int
    state: Literal["complete", "pruned", "failed", "running"]
    values: (
        tuple[float, ...] | None
    )  # the objectives; of a pruned trial the last one it reported; None: there is none
    params: dict[str, Any]  # active parameters only, as drawn
    start: float | None  # time.time()
    end: float | None
    epochs: int | None  # the last step it reported; with several seeds their sum
    directory: str  # relative to the sweep's
    error: str | None = None  # one line
    duplicate_of: int | None = None  # the trial whose value it took, without a run of its own
    seed_values: tuple[
        float, ...
    ] = ()  # the first objective for each seed, where there are several
    retries: int = 0

    @property
    def seed_std(self) -> float | None:
        """The spread over the seeds (n - 1), or None with fewer than two."""
        return statistics.stdev(self.seed_values) if len(self.seed_values) > 1 else None


# -- the files


def write_results(
    sweep_dir: Path,
    trials: Sequence[TrialRecord],
    directions: Sequence[str],
    *,
    overrides_of: Callable[[TrialRecord], Sequence[str]],
    is_group: Callable[[str], bool],
    extra: Mapping[str, Any] | None = None,
    program: str = "python train.py",
) -> None:
    """Write `trials.csv` and, once a trial is complete, the results file, the preset and the link to the best trial.

    ``overrides_of`` gives all plain overrides that make up a trial's config, ``is_group`` tells a config group from a
    key. ``extra`` stands in the preset's head, a comment line each; ``program`` is what runs the preset.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    write_text(sweep_dir / TABLE, trials_csv(trials, directions))
    chosen = best(trials, directions)
    if chosen is None:
        return
    _write_if_changed(sweep_dir / RESULTS, optimization_results(trials, directions))
    preset = make_preset(overrides_of(chosen), is_group)
    head = _preset_head(sweep_dir, chosen, preset, extra or {}, program)
    _write_if_changed(sweep_dir / PRESET, "\n".join([*head, preset.text()]))
    first_seed = f"{chosen.directory}/seed_0"  # with several seeds that is a run, which the trial's directory is not
    replace_link(
        sweep_dir / LINK, first_seed if (sweep_dir / first_seed).is_dir() else chosen.directory
    )


def optimization_results(trials: Iterable[TrialRecord], directions: Sequence[str]) -> str:
    """Return the text of upstream's results file; at least one trial must be complete."""
    trials = list(trials)
    results: dict[str, Any] = {"name": "optuna"}
    if len(directions) > 1:
        front = pareto(trials, directions)
        results["solutions"] = [{"params": t.params, "values": list(t.values or ())} for t in front]
    else:
        chosen = best(trials, directions)
        assert chosen is not None
        assert chosen.values is not None
        results |= {"best_params": chosen.params, "best_value": chosen.values[0]}
    return OmegaConf.to_yaml(OmegaConf.create(results))


def trials_csv(trials: Sequence[TrialRecord], directions: Sequence[str]) -> str:
    """Return the table of all trials: a row a trial, a column a parameter; what a trial does not have is empty."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    values = ["value"] if len(directions) == 1 else [f"value_{i}" for i in range(len(directions))]
    extras: dict[str, list[Any]] = {
        "duplicate_of": [trial.duplicate_of for trial in trials],
        "seed_std": [trial.seed_std for trial in trials],
        "retries": [trial.retries or None for trial in trials],
        "error": [trial.error for trial in trials],
    }
    used = {
        name: column for name, column in extras.items() if any(cell is not None for cell in column)
    }
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    params = [f"params.{key}" for key in keys]
    writer.writerow(
        ["number", "state", *values, "start", "end", "epochs", "directory", *params, *used]
    )
    for i, trial in enumerate(trials):
        given = list(trial.values or ())[: len(values)]
        writer.writerow(
            [
                trial.number,
                trial.state,
                *given,
                *[None] * (len(values) - len(given)),
                _local_time(trial.start),
                _local_time(trial.end),
                trial.epochs,
                trial.directory,
                *[param_text(trial.params[key]) if key in trial.params else None for key in keys],
                *[column[i] for column in used.values()],
            ]
        )
    return file.getvalue()


def replace_link(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, relative to its folder; a reader sees the old one or the new one."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)  # of a process that was killed
    temporary.symlink_to(target)
    try:
        os.replace(temporary, link)
    except OSError as error:  # somebody's own folder of that name
        temporary.unlink()
        log.warning(
            "%s: cannot become the link to the best trial (%s); move it away", link, error.strerror
        )


def command_of(overrides: Sequence[str], program: str = "python train.py") -> str:
    """Return the command line, quoted for a shell, that runs `program` with plain overrides."""
    return " ".join([program, *map(shlex.quote, overrides)])


def shown_path(path: Path) -> str:
    """Return a path as one types it: relative to the current directory where it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _write_if_changed(path: Path, text: str) -> None:
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    write_text(path, text)


def _local_time(seconds: float | None) -> str | None:
    return (
        None
        if seconds is None
        else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
    )


# -- the preset


@dataclass
class Preset:
    """A trial's overrides as the contents of a Hydra preset."""

    included: list[Any] = field(default_factory=list)  # defaults list: what is added
    chosen: list[Any] = field(
        default_factory=list
    )  # defaults list: overrides; Hydra wants them last
    values: DictConfig = field(default_factory=lambda: OmegaConf.create({}))
    left_out: list[str] = field(
        default_factory=list
    )  # overrides that only a command line can express
    is_added: bool = False  # the app has no default for presets: `+experiment=NAME`

    def text(self) -> str:
        """Return the YAML, without its head."""
        defaults = OmegaConf.to_yaml(
            OmegaConf.create({"defaults": [*self.included, *self.chosen, "_self_"]})
        )
        return defaults + (OmegaConf.to_yaml(self.values) if self.values else "")


def make_preset(overrides: Sequence[str], is_group: Callable[[str], bool]) -> Preset:
    """Turn plain overrides into a preset that composes the same config.

    Deletions, single list elements and the extension of lists depend on what they are applied to: they are
    `left_out`, and so is each later override of the same keys, since order counts.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    preset = Preset()
    blocked: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = _dotted(override.package or override.key_or_group)
        if any(_is_related(key, other) for other in blocked) or not _include(
            preset, override, is_group
        ):
            blocked.append(key)
            preset.left_out.append(override.input_line or str(override))
    return preset


def _include(preset: Preset, override: Any, is_group: Callable[[str], bool]) -> bool:
    """Take a parsed override into the preset; return False where a preset cannot express it."""
    if override.is_delete() or override.is_list_extend() or override.is_sweep_override():
        return False
    key, value = override.key_or_group, override.value()
    if not override.is_value_path and is_group(key) and not isinstance(value, dict):
        return _include_group(preset, override, value)
    has_index = any(part.isdigit() for part in _dotted(key).split("."))
    if (
        has_index
        or override.package is not None
        or "/" in key
        or key.partition(".")[0] == "defaults"
    ):
        return False
    try:
        OmegaConf.update(preset.values, key, value, merge=True, force_add=True)
    except (
        OmegaConfBaseException
    ):  # below an interpolation, which means something only in the whole config
        return False
    return True


def _include_group(preset: Preset, override: Any, value: Any) -> bool:
    key = override.key_or_group
    if override.is_force_add() or override.package == "":
        return False
    if key == PRESET_GROUP and override.package is None:
        names = value if isinstance(value, list) else [value]
        if LINK in names:  # the preset of another sweep: this one would include itself
            return False
        preset.included += [f"/{key}/{name}" for name in names]
        preset.is_added = override.is_add()
        return True
    name = f"/{key}" if override.package is None else f"/{key}@{override.package}"
    if override.is_add():
        preset.included.append({name: value})
    else:
        preset.chosen = [
            item for item in preset.chosen if f"override {name}" not in item
        ]  # the last one wins
        preset.chosen.append({f"override {name}": value})
    return True


def _dotted(key: str) -> str:
    return re.sub(r"[/\[\].]+", ".", key).strip(".")


def _is_related(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _preset_head(
    sweep_dir: Path, trial: TrialRecord, preset: Preset, extra: Mapping[str, Any], program: str
) -> list[str]:
    choice = f"{'+' if preset.is_added else ''}{PRESET_GROUP}={LINK}"
    runnable = [
        line for line in preset.left_out if not line.lstrip("+").startswith(f"{PRESET_GROUP}=")
    ]
    command = command_of(["--config-dir", shown_path(sweep_dir), choice, *runnable], program)
    values = ", ".join(map(repr, trial.values or ()))
    lines = [
        "@package _global_",
        command,
        f"Trial {trial.number} of {sweep_dir.name} reached {values}.",
    ]
    lines += [f"{key}: {value}" for key, value in extra.items()]
    if preset.left_out:
        lines.append(
            f"No preset can express this, so it is not in this file: {shlex.join(preset.left_out)}"
        )
    return ["# " + line.replace("\n", "\\n") for line in lines]
