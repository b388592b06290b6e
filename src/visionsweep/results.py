"""`result.json`: how a run ended, in one small file that people and programs read."""

import json
import math
from pathlib import Path
from typing import Any, Literal

from visionsweep.atomic import write_text
from visionsweep.recording import Recorder

RESULT = "result.json"


def result_of(
    config: dict[str, Any],
    state: Literal["finished", "stopped", "failed"],
    recorder: Recorder | None = None,
    *,
    test: dict[str, float] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """Return the contents of `result.json`; ``metrics`` are those of the best epoch."""
    best = None if recorder is None or recorder.best.value is None else recorder.best
    result = {
        "state": state,
        "objective": {**config["objective"], "value": best.value if best else None},
        "best_epoch": best.epoch if best else None,
        "epochs": len(recorder.history) if recorder else 0,
        "metrics": recorder.history[best.epoch - 1]["metrics"] if recorder and best else {},
        "test": test,
        "seconds": recorder.seconds() if recorder else 0.0,
        "images_per_second": recorder.images_per_second() if recorder else None,
    }
    return result if error is None else {**result, "error": error}


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write `result.json` atomically. Numbers that JSON does not have (NaN) become null."""
    write_text(run_dir / RESULT, json.dumps(_finite(result), indent=2, ensure_ascii=False) + "\n")


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Return `result.json` of a run, or None if it has not ended."""
    try:
        text = (run_dir / RESULT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    contents: dict[str, Any] = json.loads(text)
    return contents


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
