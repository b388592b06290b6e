"""What a run is: its resolved config, environment and split, written before it starts.

A resumed run is held against all of it.
"""

import json
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import visionsweep.config.schema  # noqa: F401 - registers the schema, also for a notebook
from visionsweep.config.difference import difference
from visionsweep.config.paths import resolve_paths, shown
from visionsweep.data.splits import read_split, split_rows, write_split
from visionsweep.errors import ConfigError, UserError
from visionsweep.run.assemble import Experiment
from visionsweep.rundir.atomic import write_text
from visionsweep.text import first_line
from visionsweep.training.reproducibility import environment, git_diff

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
SPLIT = "split.csv"
DIFF = "code.diff"  # what the code differed by from its commit

# A resumed run may use another machine's device, another place of the data, another tracking server.
_MAY_DIFFER = re.compile(r"trainer\.(device|threads)|data\.root|tracking(\..*)?")


def resolved_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain containers: interpolations resolved, paths absolute, without `hydra` and `resume`."""
    directory = Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()
    keys = [str(key) for key in cfg if key not in ("hydra", "resume")]
    try:
        config: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
            OmegaConf.masked_copy(cfg, keys), resolve=True, throw_on_missing=True
        )
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {first_line(error)}") from error
    resolve_paths(config, directory)
    return config


def refuse_difference(config: dict[str, Any], run_dir: Path) -> None:
    """Raise `ConfigError` unless `config` is the one that the run in `run_dir` started with, key by key."""
    stored = OmegaConf.to_container(OmegaConf.load(run_dir / CONFIG))
    lines = [
        f"  {key}: {before!r} -> {now!r}"
        for key, (before, now) in difference(stored, config).items()
        if not _MAY_DIFFER.fullmatch(key)
    ]
    if lines:
        raise ConfigError(
            f"resume: {shown(run_dir)} was started with another config (run -> now); nothing was written:\n"
            + "\n".join(lines)
            + "\n  Take the change back, or start a new run with it."
        )


def take_up_trial(config: dict[str, Any], run_dir: Path) -> bool:
    """Return whether the directory of a sweep's trial holds a run to go on with; its `name` is taken over.

    Without a whole description the run died before it began, and there is nothing to go on with. Raises `ConfigError`
    if it was started with another config. The sweep may have been renamed, so `study` is not compared.
    """
    if not (run_dir / CONFIG).is_file() or not (run_dir / ENVIRONMENT).is_file():
        return False
    stored = OmegaConf.load(run_dir / CONFIG)
    config["name"] = OmegaConf.select(
        stored, "name"
    )  # the time of the first start, where the user gave none
    refuse_difference(config | {"study": OmegaConf.select(stored, "study")}, run_dir)
    return True


def write_description(
    config: dict[str, Any], run_dir: Path, experiment: Experiment, *, is_resumed: bool
) -> None:
    """Write config, environment and split; a resumed run must find its split again, before anything is written."""
    split = (experiment.dataset, experiment.train_indices, experiment.val_indices)
    split_path = run_dir / SPLIT
    if not is_resumed or not split_path.exists():
        write_split(split_path, *split)
    elif read_split(split_path) != split_rows(*split):
        raise UserError(
            f"{shown(split_path)}: the data has changed since the run started, so it cannot go on exactly; "
            "bring back the same files, or start a new run"
        )
    write_text(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))
    source = Path(__file__).parent
    now, diff = environment(source), git_diff(source)
    if diff:
        write_text(run_dir / DIFF, f"{diff}\n")
    if is_resumed:  # the first record stays: half of the run was made by it
        record = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))
        record["resumed"].append(now)
    else:
        record = now | {
            "overrides": typed_overrides(),
            "bad_images": experiment.dataset.bad_images,
            "resumed": [],
        }
    write_text(run_dir / ENVIRONMENT, json.dumps(record, indent=2) + "\n")


def typed_overrides() -> list[str]:
    """Return the overrides that compose this config again: the job's own, and where else Hydra looks for YAML."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get().overrides
    return [*hydra.task, *(o for o in hydra.hydra if o.lstrip("+").startswith("hydra.searchpath"))]
