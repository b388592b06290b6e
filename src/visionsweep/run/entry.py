"""What the record of a run begins with: its name in MLflow, the parameters that runs are compared by, tags and data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig

from visionsweep.data.digest import content_digest
from visionsweep.run.assemble import Experiment
from visionsweep.run.description import CONFIG, DIFF, ENVIRONMENT, SPLIT, typed_overrides
from visionsweep.run.identity import ordered_values, run_title, trial_place
from visionsweep.run.recorder import count_parameters
from visionsweep.rundir.journal import RUN_NAME_TAG, Journal
from visionsweep.rundir.result import NUM_PARAMETERS
from visionsweep.sweep.stored import read_stored
from visionsweep.tracking.ack import sweep_directory
from visionsweep.training.reproducibility import environment

COMPONENT_GROUPS = ("model", "loss", "optim", "scheduler", "data", "augment")


def start_journal(
    config: dict[str, Any], run_dir: Path, experiment: Experiment, journal: Journal
) -> str:
    """Record name, parameters, tags, data and files of the run; only what is new if it was started before.

    Returns the name, which gets the score at its end.
    """
    record = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))
    searched = _searched(run_dir)
    params = _important_params(config, searched)
    params |= {
        "effective_batch_size": min(
            config["trainer"]["batch_size"] * config["trainer"]["accumulate"],
            experiment.train.num_images,
        ),
        NUM_PARAMETERS: count_parameters(experiment.state.model),
        "num_train_images": len(experiment.train_indices),
        "num_val_images": len(experiment.val_indices),
        "num_classes": experiment.dataset.num_classes,
    }
    tags = _tags(config, run_dir, record) | {"dataset": experiment.dataset.name}
    title = run_title(config, run_dir, _choices(), searched)
    journal.start(title, config["tracking"]["experiment"], params, tags)
    journal.datasets(_datasets(config, experiment))
    for file in (CONFIG, ENVIRONMENT, SPLIT, DIFF):
        if (run_dir / file).exists():
            journal.artifact(file)
    return title


def record_failed_start(config: dict[str, Any], run_dir: Path, error: str) -> None:
    """Give a trial that could not even be built its place in the record."""
    journal = Journal(run_dir)
    try:
        tags = _tags(config, run_dir, environment(Path(__file__).parent))
        searched = _searched(run_dir)
        title = run_title(config, run_dir, _choices(), searched)
        journal.start(
            title, config["tracking"]["experiment"], _important_params(config, searched), tags
        )
        journal.tags({"error": error, RUN_NAME_TAG: f"{title} failed"})
        journal.end("failed")
    finally:
        journal.close()


def _tags(config: dict[str, Any], run_dir: Path, record: dict[str, Any]) -> dict[str, str]:
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
    }
    place = trial_place(config, run_dir)
    return tags if place is None else tags | {"visionsweep.trial": place}


def _choices() -> dict[str, str]:
    """Return the option of each component group, as typed: `focal` says more than its class path."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices  # a list of choices is not there
    return {group: str(choices[group]) for group in COMPONENT_GROUPS if group in choices}


def _searched(run_dir: Path) -> dict[str, object]:
    """Return what the sweep searched, or where that is unknown all that was typed, with the run's values."""
    overrides = typed_overrides()
    stored = read_stored(sweep_directory(run_dir)) if HydraConfig.initialized() else None
    if stored is None or "space" not in stored.search:
        keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    else:
        keys = list(stored.search["space"])
    return ordered_values(keys, overrides)


def _important_params(config: dict[str, Any], searched: dict[str, object]) -> dict[str, object]:
    """Return the parameters that runs are compared by; all others are in `config.yaml`."""
    flat = flatten(config)
    params: dict[str, object] = dict(_choices())
    wanted = [key for key in flat if key.partition(".")[0] in ("loss", "optim")]
    wanted += [
        f"trainer.{key}"
        for key in ("epochs", "batch_size", "accumulate", "precision", "clip_norm", "ema")
    ]
    wanted += ["trainer.sampler", "split.val_fraction", "split.fold", "seed", "objective.metric"]
    for key in (*wanted, *(key for key in searched if key not in ("name", "study"))):
        if key in flat and not key.endswith("._target_"):
            params[key] = flat[key]
        elif key in searched:  # a group of which the config shows only the contents
            params.setdefault(key, searched[key])
    return params


def _datasets(config: dict[str, Any], experiment: Experiment) -> list[dict[str, object]]:
    dataset = experiment.dataset
    parts = [
        ("train", dataset.train, experiment.train_indices),
        ("validation", dataset.train, experiment.val_indices),
    ]
    if dataset.test is not None:
        parts.append(("test", dataset.test, np.arange(len(dataset.test))))
    source = config["data"].get("root") or config["data"].get("path") or dataset.name
    return [
        {
            "name": f"{dataset.name} {context}",
            "digest": content_digest(images, indices),
            "context": context,
            "source": source,
            "profile": {"num_images": len(indices), "num_classes": dataset.num_classes},
        }
        for context, images, indices in parts
    ]


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return ``{"optim.lr": 0.001, ...}`` of nested mappings."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
