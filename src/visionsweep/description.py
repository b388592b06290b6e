"""What a run is: its resolved config, environment and split, written before it starts, and the journal's first record.

A resumed run is held against all of it.
"""

import json
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import visionsweep.config  # noqa: F401 - registers the schema, also for a notebook
from visionsweep.assembly import Experiment
from visionsweep.atomic import write_text
from visionsweep.data.splits import read_split, split_rows, write_split
from visionsweep.errors import ConfigError, UserError
from visionsweep.paths import difference, resolve_paths, shown
from visionsweep.recording import count_parameters
from visionsweep.reproducibility import environment
from visionsweep.results import NUM_PARAMETERS
from visionsweep.tracking.ack import sweep_directory
from visionsweep.tracking.journal import Journal

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
SPLIT = "split.csv"
COMPONENT_GROUPS = ("model", "loss", "optim", "scheduler", "data", "augment")

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
        raise ConfigError(f"{error.full_key}: {str(error).strip().splitlines()[0]}") from error
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
    config["name"] = OmegaConf.select(stored, "name")  # the time of the first start, where the user gave none
    refuse_difference(config | {"study": OmegaConf.select(stored, "study")}, run_dir)
    return True


def write_description(config: dict[str, Any], run_dir: Path, experiment: Experiment, *, is_resumed: bool) -> None:
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
    now = environment(Path(__file__).parent)
    if is_resumed:  # the first record stays: half of the run was made by it
        record = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))
        record["resumed"].append(now)
    else:
        record = now | {"overrides": _overrides(), "bad_images": experiment.dataset.bad_images, "resumed": []}
    write_text(run_dir / ENVIRONMENT, json.dumps(record, indent=2) + "\n")


def _overrides() -> list[str]:
    """Return the overrides that compose this config again: the job's own, and where else Hydra looks for YAML."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get().overrides
    return [*hydra.task, *(o for o in hydra.hydra if o.lstrip("+").startswith("hydra.searchpath"))]


def start_journal(config: dict[str, Any], run_dir: Path, experiment: Experiment, journal: Journal) -> None:
    """Record name, parameters, tags and files of the run; only what is new if it was started before."""
    record = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))
    git = record["git"]
    tags = {
        "git.commit": git["commit"] or "not in git",
        "git.dirty": {True: "true", False: "false", None: "not in git"}[git["dirty"]],
        "command": " ".join(record["command"]),
        # what MLflow's own table shows in its column Source
        "mlflow.source.name": record["command"][0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git["commit"] or "",
        "run_dir": str(run_dir),
        "dataset": experiment.dataset.name,
    }
    name = trial_name(config, run_dir) or run_dir.name
    journal.start(name, config["tracking"]["experiment"], _params(config, experiment), tags)
    for file in (CONFIG, ENVIRONMENT, SPLIT):
        journal.artifact(file)


def trial_name(config: dict[str, Any], run_dir: Path) -> str | None:
    """Return STUDY/NUMBER, or STUDY/NUMBER/seed_K, of a run that belongs to a sweep; None for any other."""
    sweep_dir = sweep_directory(run_dir)
    place = run_dir.relative_to(sweep_dir)
    if sweep_dir.name != config["study"] or not place.parts[0].isdigit():
        return None
    return f"{sweep_dir.name}/{place.as_posix()}"


def _params(config: dict[str, Any], experiment: Experiment) -> dict[str, object]:
    params: dict[str, object] = {}
    if (
        HydraConfig.initialized()
    ):  # what was typed: loss=focal says more than its class path (a list of choices is not there)
        choices = HydraConfig.get().runtime.choices
        params |= {group: choices[group] for group in COMPONENT_GROUPS if group in choices}
    params |= flatten({key: value for key, value in config.items() if key not in ("name", "study", "tracking")})
    trainer = config["trainer"]
    params["effective_batch_size"] = min(trainer["batch_size"] * trainer["accumulate"], experiment.train.num_images)
    params[NUM_PARAMETERS] = count_parameters(experiment.state.model)
    return params


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return ``{"optim.lr": 0.001, ...}`` of nested mappings."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
