"""From a trial's overrides to a Hydra preset, `experiment/best.yaml`, that composes its config."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visionsweep.config.paths import shown
from visionsweep.rundir.layout import BEST_TRIAL, PRESET_GROUP
from visionsweep.sweep.command_line import command_of
from visionsweep.sweep.trial_record import TrialRecord
from visionsweep.text import mask_passwords


def preset_file(
    sweep_dir: Path,
    trial: TrialRecord,
    overrides: Sequence[str],
    is_group: Callable[[str], bool],
    program: str,
) -> str:
    """Return the text of a trial's preset; its head has the command that runs it."""
    preset = make_preset(overrides, is_group)
    choice = f"{'+' if preset.is_added else ''}{PRESET_GROUP}={BEST_TRIAL}"
    own = f"{PRESET_GROUP}="
    more = [line for line in preset.left_out if not line.lstrip("+").startswith(own)]
    values = ", ".join(map(repr, trial.values or ()))
    lines = [
        "@package _global_",
        command_of(program, ["--config-dir", shown(sweep_dir), choice, *more]),
        f"Trial {trial.number} of {sweep_dir.name} reached {values}.",
    ]
    if preset.left_out:
        lines.append(f"Not in this file, since no preset can say it: {shlex.join(preset.left_out)}")
    text = ["# " + line.replace("\n", "\\n") for line in lines] + [preset.text()]
    return mask_passwords("\n".join(text))


@dataclass
class Preset:
    """A trial's overrides as the contents of a Hydra preset."""

    included: list[Any] = field(default_factory=list)  # defaults list: what is added
    chosen: list[Any] = field(default_factory=list)  # defaults list: overrides; Hydra's order: last
    values: DictConfig = field(default_factory=lambda: OmegaConf.create({}))
    left_out: list[str] = field(default_factory=list)  # overrides for the command line only
    is_added: bool = False  # the app has no default preset: `+experiment=NAME`

    def text(self) -> str:
        """Return the YAML, without its head."""
        defaults = {"defaults": [*self.included, *self.chosen, "_self_"]}
        values = OmegaConf.to_yaml(self.values) if self.values else ""
        return OmegaConf.to_yaml(OmegaConf.create(defaults)) + values


def make_preset(overrides: Sequence[str], is_group: Callable[[str], bool]) -> Preset:
    """Turn plain overrides into a preset that composes the same config.

    Deletions, single list elements and list extensions depend on what they are applied to: they
    are `left_out`, and so is each later override of the same keys, since order counts.
    """
    preset = Preset()
    blocked: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = _dotted(override.package or override.key_or_group)
        is_blocked = any(_is_related(key, other) for other in blocked)
        if is_blocked or not _include(preset, override, is_group):
            blocked.append(key)
            preset.left_out.append(override.input_line or str(override))
    return preset


def _include(preset: Preset, override: Override, is_group: Callable[[str], bool]) -> bool:
    """Add a parsed override to the preset; return False if no preset can express it."""
    if override.is_hydra_override():  # `hydra.searchpath` works in the primary config only
        return False
    if override.is_delete() or override.is_list_extend() or override.is_sweep_override():
        return False
    key, value = override.key_or_group, override.value()
    if not override.is_value_path and is_group(key) and not isinstance(value, dict):
        return _include_group(preset, override, value)
    parts = _dotted(key).split(".")
    has_index = any(part.isdigit() for part in parts)
    if has_index or override.package is not None or "/" in key or parts[0] == "defaults":
        return False
    try:
        OmegaConf.update(preset.values, key, value, merge=True, force_add=True)
    except OmegaConfBaseException:  # below an interpolation, which needs the whole config
        return False
    return True


def _include_group(preset: Preset, override: Override, value: Any) -> bool:
    key = override.key_or_group
    if override.is_force_add() or override.package == "":
        return False
    if key == PRESET_GROUP and override.package is None:
        names = value if isinstance(value, list) else [value]
        if BEST_TRIAL in names:  # the preset of another sweep: this one would include itself
            return False
        preset.included += [f"/{key}/{name}" for name in names]
        preset.is_added = override.is_add()
        return True
    name = f"/{key}" if override.package is None else f"/{key}@{override.package}"
    if override.is_add():
        preset.included.append({name: value})
    else:  # the last choice wins
        preset.chosen = [item for item in preset.chosen if f"override {name}" not in item]
        preset.chosen.append({f"override {name}": value})
    return True


def _dotted(key: str) -> str:
    return re.sub(r"[/\[\].]+", ".", key).strip(".")


def _is_related(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
