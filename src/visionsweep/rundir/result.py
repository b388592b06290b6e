"""`result.json`: how a run ended, in one small file that people and programs read; and where its weights lie.

Imports no torch: the controller of a sweep reads results too.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from visionsweep.rundir.atomic import write_text

if TYPE_CHECKING:
    from visionsweep.run.recorder import Recorder

RESULT = "result.json"
BEST = "checkpoints/best.pt"
LAST = "checkpoints/last.pt"
NUM_PARAMETERS = "num_parameters"  # an objective that is no metric

# The objective; with `objective.others`, a tuple of it and of those in their order.
Objective = float | tuple[float, ...]


def result_of(
    config: dict[str, Any],
    state: Literal["finished", "stopped", "failed", "pruned"],
    recorder: "Recorder | None" = None,
    *,
    test: dict[str, float] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """Return the contents of `result.json`; ``metrics`` and ``others`` are those of the best epoch."""
    best = None if recorder is None or recorder.best.value is None else recorder.best
    objective = config["objective"]
    metrics = recorder.history[best.epoch - 1]["metrics"] if recorder and best else {}
    known = metrics | {NUM_PARAMETERS: recorder.num_parameters} if recorder else {}
    result = {
        "state": state,
        "objective": {
            "metric": objective["metric"],
            "direction": objective["direction"],
            "value": best.value if best else None,
        },
        "others": {name: known.get(name) for name in objective["others"]},
        "best_epoch": best.epoch if best else None,
        "epochs": len(recorder.history) if recorder else 0,
        "metrics": metrics,
        "test": test,
        "seconds": recorder.seconds() if recorder else 0.0,
        "images_per_second": recorder.images_per_second() if recorder else None,
    }
    return result if error is None else {**result, "error": error}


def objective_of(result: dict[str, Any]) -> Objective:
    """Return what a finished run returns; a number that `result.json` could not hold (NaN) comes back as NaN."""
    values = [result["objective"]["value"], *result["others"].values()]
    first, *others = (math.nan if value is None else value for value in values)
    return (first, *others) if others else first


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write `result.json` atomically. Numbers that JSON does not have (NaN) become null."""
    write_text(run_dir / RESULT, json.dumps(_finite(result), indent=2, ensure_ascii=False) + "\n")


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Return `result.json` of a run, or None if it has not ended."""
    try:
        text = (run_dir / RESULT).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    contents: dict[str, Any] = json.loads(text)
    return contents


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
