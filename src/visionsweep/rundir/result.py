"""`result.json`: how a run ended, in one small file for people and programs. Imports no torch."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import RESULT
from visionsweep.text import first_line

log = logging.getLogger(__name__)

NUM_PARAMETERS = "num_parameters"  # an objective that is no metric

# The objective; with `objective.others`, a tuple of it and of the others in their order.
Objective = float | tuple[float, ...]


def objective_of(result: dict[str, Any]) -> Objective:
    """Return the objective of a finished run; null stands for NaN, which JSON does not have."""
    values = [result["objective"]["value"], *result["others"].values()]
    first, *others = (math.nan if value is None else value for value in values)
    return (first, *others) if others else first


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write the result atomically. NaN and infinities become null."""
    write_text(run_dir / RESULT, json.dumps(_finite(result), indent=2, ensure_ascii=False) + "\n")


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Return the result of a run, or None if it has not ended.

    Without a readable one it has not: a run that is resumed writes it again.
    """
    path = run_dir / RESULT
    try:
        contents: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        contents, reason = None, first_line(error)
    else:
        reason = "no result"
    if not isinstance(contents, dict) or not isinstance(contents.get("state"), str):
        log.warning("%s: damaged (%s); the run counts as one that has not ended", path, reason)
        return None
    return contents


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
