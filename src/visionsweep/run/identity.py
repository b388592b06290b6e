"""The identity of a run in the record: name, parameters, tags, data sets.

A run is named `0.913 focal adamp lr=0.0003 #017`: F1, loss, optimizer, what was searched, trial.
The F1 comes first because MLflow cuts off the end of a long name.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from visionsweep.data.dataset import ImageDataset
from visionsweep.data.digest import VERSION as DIGEST_VERSION
from visionsweep.data.digest import content_digest
from visionsweep.run.assemble import RunParts
from visionsweep.run.context import RunContext
from visionsweep.rundir.layout import parse_place
from visionsweep.rundir.result import NUM_PARAMETERS
from visionsweep.text import short_value

# The default name of a run.
_TIME = re.compile(r"\d{4}-(\d\d-\d\d)_(\d\d)-(\d\d)-\d\d-\d+")
_ALWAYS = ("loss", "optim", "optim.lr")
_MAX_VALUE = 24  # characters
# Which run it is and where it runs, not what it does.
_LEFT_OUT = re.compile(
    r"name|study|seed|split\.fold|resume|sweep|(tracking|hydra)([./].*)?|data\.(root|path)"
    r"|trainer\.(threads|device)"
)
_PARAMS = [
    *(f"trainer.{key}" for key in ("epochs", "batch_size", "accumulate", "precision")),
    *("trainer.clip_norm", "trainer.ema", "trainer.swa", "trainer.checkpoint", "trainer.sampler"),
    *("model.name", "model.pretrained", "model.freeze", "model.unfreeze_epoch"),
    *("split.val_fraction", "split.fold", "seed", "objective.metric"),
]
_COLUMNS = {"lr": "optim.lr", "accumulate": "trainer.accumulate", "epochs": "trainer.epochs"}

# The last data set and its digest: the checks of a sweep share one.
_digested: dict[int, tuple[ImageDataset, str]] = {}


def run_title(context: RunContext, outcome: str = "") -> str:
    """Return the name of a run; ``outcome``, such as its score, comes first.

    Then comes the name that the user chose, if any: it is what they look for.
    """
    words = []
    values: Mapping[str, Any] = {
        **context.choices,
        **context.searched,
        "optim.lr": context.config.optim.get("lr"),
    }
    for key in dict.fromkeys((*_ALWAYS, *context.searched)):
        value = values.get(key)
        if value is None or _LEFT_OUT.fullmatch(key):
            continue
        name = "" if key in context.choices else f"{key.rpartition('.')[2]}="
        words.append(f"{name}{short_value(_number(value), limit=_MAX_VALUE)}")
    which, is_chosen = _which(context)
    words.insert(0 if is_chosen else len(words), which)
    return " ".join([outcome, *words] if outcome else words)


def score_text(metric: str, value: float) -> str:
    """Return the start of a name: ``0.913`` for ``val/f1_macro``, ``loss=0.913`` for another."""
    name = metric.rpartition("/")[2]
    return f"{'' if name == 'f1_macro' else f'{name}='}{value:.3f}"


def run_params(context: RunContext) -> dict[str, object]:
    """Return the parameters by which runs are compared; all others are in the config.

    What the columns of MLflow's table show is there a second time under a short name, since a
    column is narrow: `lr`, three digits of `optim.lr`.
    """
    flat = flatten(context.stored)
    params: dict[str, object] = dict(context.choices)
    wanted = [key for key in flat if key.partition(".")[0] in ("loss", "optim")]
    searched = [key for key in context.searched if key not in ("name", "study")]
    for key in (*wanted, *_PARAMS, *searched):
        if key in flat and not key.endswith("._target_"):
            params[key] = flat[key]
        elif key in context.searched:  # a group, of which the config has only the contents
            params.setdefault(key, context.searched[key])
    for short, key in _COLUMNS.items():
        if flat.get(key) is not None:
            params[short] = short_value(_number(flat[key]))
    return params


def measured_params(context: RunContext, parts: RunParts) -> dict[str, object]:
    """Return the parameters that follow from the data and the model."""
    trainer = context.config.trainer
    update = trainer.batch_size * trainer.accumulate
    return {
        "effective_batch_size": min(update, parts.train.num_images),
        NUM_PARAMETERS: parts.num_parameters,
        "num_train_images": len(parts.train_indices),
        "num_val_images": len(parts.val_indices),
        "num_classes": parts.dataset.num_classes,
    }


def run_tags(context: RunContext, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a run: the state of its code, its command, its place."""
    git, command = environment["git"], environment["command"]
    tags = {
        "git.commit": git["commit"] or "not in git",
        "git.dirty": {True: "true", False: "false", None: "not in git"}[git["dirty"]],
        "command": " ".join(command),
        # The column Source of MLflow's table.
        "mlflow.source.name": command[0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git["commit"] or "",
        "run_dir": str(context.run_dir),
    }
    return tags if context.place is None else tags | {"visionsweep.trial": context.place}


def describe_datasets(context: RunContext, parts: RunParts) -> list[dict[str, object]]:
    """Return name, digest, source and size of each split, for the journal."""
    dataset, data = parts.dataset, context.config.data
    splits = [
        ("train", dataset.train, parts.train_indices),
        ("validation", dataset.train, parts.val_indices),
    ]
    if dataset.test is not None:
        splits.append(("test", dataset.test, np.arange(len(dataset.test))))
    return [
        {
            "name": f"{dataset.name} {split}",
            "digest": content_digest(images, indices),
            "digest_version": DIGEST_VERSION,
            "context": split,
            "source": data.get("root") or data.get("path") or dataset.name,
            "profile": {"num_images": len(indices), "num_classes": dataset.num_classes},
        }
        for split, images, indices in splits
    ]


def data_digest(dataset: ImageDataset) -> str:
    """Return the digest of all images of a data set, however they are split."""
    if id(dataset) not in _digested:
        sets = [images for images in (dataset.train, dataset.test) if images is not None]
        digest = "-".join(content_digest(images, np.arange(len(images))) for images in sets)
        _digested.clear()
        _digested[id(dataset)] = dataset, digest
    return _digested[id(dataset)][1]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return ``{"optim.lr": 0.001, ...}`` of nested mappings."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _which(context: RunContext) -> tuple[str, bool]:
    """Return which run it is: trial, time of the start, or name; and whether the user chose it."""
    if context.place is None:
        name = (context.folds_dir or context.run_dir).name
        time = _TIME.fullmatch(name)
        which = "{} {}:{}".format(*time.groups()) if time else name
        if context.folds_dir is not None:
            which += f" fold {context.config.split.fold}"
        return which, time is None
    number, seed, fold = parse_place(context.place)
    words = [f"#{number:03d}"]
    words += [] if seed is None else [f"seed {seed}"]
    words += [] if fold is None else [f"fold {fold}"]
    return " ".join(words), False


def _number(value: object) -> object:
    """Return a number that was typed as a number."""
    try:
        return float(str(value))
    except ValueError:
        return value
