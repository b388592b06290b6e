"""Readers of the files of a sweep and its runs, for which a missing or half-written file is empty.

`record` makes trials of them.
"""

import contextlib
import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import ENVIRONMENT, HYDRA_OVERRIDES
from visionsweep.rundir.result import read_result

Record = Mapping[str, Any]


def yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, or an empty one."""
    contents = _yaml(path)
    return contents if isinstance(contents, dict) else {}


def _yaml(path: Path) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError, ValueError):
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    return None


def table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and rows of a CSV file; a row that is cut off ends in empty cells."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        reader = csv.DictReader(text.splitlines(keepends=True), restval="")
        rows = [{key: cell for key, cell in row.items() if isinstance(key, str)} for row in reader]
        return list(reader.fieldnames or ()), rows
    except (OSError, csv.Error):
        return [], []


def result(run_dir: Path) -> dict[str, Any]:
    """Return the result of a run, or an empty mapping."""
    with contextlib.suppress(OSError, ValueError):
        contents: Any = read_result(run_dir)
        return contents if isinstance(contents, dict) else {}
    return {}


def journal(run_dir: Path) -> Sequence[Record]:
    """Return the records of a run's journal, or none."""
    with contextlib.suppress(OSError):
        return read_journal(run_dir)
    return []


def overrides(run_dir: Path) -> list[str]:
    """Return the overrides that a run was started with; Hydra writes them before the app starts."""
    found: Any = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8")).get("overrides")
    if not isinstance(found, list):
        found = _yaml(run_dir / HYDRA_OVERRIDES)
    return [str(override) for override in found] if isinstance(found, list) else []


def curve(records: Iterable[Record], metric: str) -> tuple[tuple[int, float], ...]:
    """Return (step, value) of a metric by step, without NaN and infinities."""
    points: dict[int, float] = {}
    for record in records:
        values = record.get("values")
        if record.get("type") == "metrics" and isinstance(values, dict) and metric in values:
            value, step = number(values[metric]), record.get("step")
            if value is not None and isinstance(step, int):
                points[step] = value
    return tuple(sorted((step, value) for step, value in points.items() if math.isfinite(value)))


def end_state(records: Iterable[Record]) -> str | None:
    """Return how a run ended by its journal; None while it runs or if it was killed."""
    state = None
    for record in records:
        if record.get("type") == "end":
            state = record.get("state")
        elif record.get("type") in ("start", "resume"):
            state = None
    return state


def times(records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Return the times of a run's first and last record, seconds since 1970."""
    stamps = [
        record["time"] / 1000 for record in records if isinstance(record.get("time"), int | float)
    ]
    return (stamps[0], stamps[-1]) if stamps else (None, None)


def number(value: Any) -> float | None:
    """Return a number (maybe NaN or infinite) from a cell or a JSON value, or None."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def seconds_since_1970(text: str) -> float | None:
    """Return the time of an ISO 8601 text, or None."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
