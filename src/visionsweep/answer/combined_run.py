"""A directory that is made of finished runs, an ensemble or a soup: what both have in common.

It is made under another name and then renamed: there is a whole one, or none.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionsweep.answer.members import ENSEMBLE
from visionsweep.config.paths import shown
from visionsweep.errors import ConfigError, UserError
from visionsweep.rundir.description import read_config
from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import CONFIG, DECISIONS, ENVIRONMENT, PREDICTIONS, RESULT, SPLIT
from visionsweep.rundir.result import write_result


@dataclass(frozen=True)
class Combined:
    """Runs made one: how, and how good that is."""

    kind: Literal["ensemble", "soup"]
    how: Mapping[str, str]  # shown as parameters
    weights: Mapping[str, float]  # of each run's directory
    value: float | None  # of the objective in its config
    metrics: Mapping[str, float]  # val/NAME
    test: Mapping[str, float] | None  # test/NAME
    details: Any  # for result.json, under `kind`
    model: str  # the file that a model of MLflow is made from


@contextlib.contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield a directory that becomes `out` on success, and is removed otherwise.

    Raises `ConfigError` if there is something in `out` already.
    """
    refuse_used(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        raise UserError(
            f"out: {shown(out)} cannot be written ({error.strerror}); choose another directory"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_used(out: Path) -> None:
    """Raise `ConfigError` if there is something in `out` already."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(f"out: {shown(out)} exists already; choose another name, or remove it")


def write_records(directory: Path, out: Path, combined: Combined, command: str) -> None:
    """Write `result.json` and the journal, which MLflow is filled from.

    ``directory`` has all other files and becomes `out`; ``command``: as typed, for the record.
    """
    config = read_config(directory)
    write_result(directory, _result(config["objective"], combined))
    f1 = combined.metrics["val/f1_macro"]
    title = f"{f1:.3f} {combined.kind} of {len(combined.weights)} {out.name}"
    params: dict[str, object] = {f"ensemble.{key}": value for key, value in combined.how.items()}
    params |= {f"member.{run}": f"{weight:.4g}" for run, weight in combined.weights.items()}
    tags = {"visionsweep.kind": ENSEMBLE, "run_dir": str(out.absolute()), "command": command}
    experiment = config.get("tracking", {}).get("experiment", "Model training")
    values = {f"best/{k.removeprefix('val/')}": v for k, v in combined.metrics.items()}
    values = {k: v for k, v in values.items() if "/f1_class/" not in k} | dict(combined.test or {})
    journal = Journal(directory)
    try:
        journal.start(title, experiment, params, tags)
        journal.metrics(0, values)
        for name in (CONFIG, ENVIRONMENT, SPLIT, PREDICTIONS, DECISIONS, RESULT):
            if (directory / name).exists():
                journal.artifact(name)
        journal.model(combined.model)
        journal.end("finished")
    finally:
        journal.close()


def _result(objective: Mapping[str, Any], combined: Combined) -> dict[str, Any]:
    """Return the keys of a run that has trained nothing itself, and the scores of its members."""
    return {
        "state": "finished",
        "objective": {
            "metric": objective["metric"],
            "direction": objective["direction"],
            "value": combined.value,
        },
        "others": {},
        "best_epoch": None,
        "epochs": 0,
        "metrics": dict(combined.metrics),
        "test": None if combined.test is None else dict(combined.test),
        "seconds": 0.0,
        "images_per_second": None,
        combined.kind: combined.details,
    }
