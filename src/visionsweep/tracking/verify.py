"""Compares a run's journal with what a tracking store gives back."""

import math
from collections import Counter
from pathlib import Path, PurePosixPath

from visionsweep.tracking.ack import load_ack
from visionsweep.tracking.entities import finite_or_nan, param_value, safe_key
from visionsweep.tracking.journal import CHECKPOINT_FOLDER, Record, read_journal
from visionsweep.tracking.store import Store

Point = tuple[int, int, float | str]  # step, time in ms, value; NaN as text, since it differs from itself


def differences(store: Store, run_dir: Path) -> list[str]:
    """Return one line for each metric, parameter and file that is missing, doubled or different.

    A checkpoint that is neither in the store nor in the run's directory is no difference: a sweep removes those of
    all but its best runs.
    """
    run_id = str(load_ack(run_dir, store.uri).run_id)
    stored = store.client.get_run(run_id).data
    points: dict[str, set[Point]] = {}
    params: dict[str, str] = {}
    files: dict[str, Record] = {}
    for record in read_journal(run_dir):
        for key, value in record.get("values", {}).items():
            point = (record["step"], record["time"], _comparable(finite_or_nan(value)))
            points.setdefault(safe_key(key), set()).add(point)
        for key, value in record.get("params", {}).items():
            params[safe_key(key)] = param_value(value)
        if record["type"] == "artifact":
            files[str(PurePosixPath(record["folder"]) / Path(record["path"]).name)] = record

    lines = [
        f"parameter {key}: {stored.params.get(key)!r}, expected {value!r}"
        for key, value in params.items()
        if stored.params.get(key) != value
    ]
    for key, expected in points.items():
        history = store.client.get_metric_history(run_id, key)
        found = Counter((point.step, point.timestamp, _comparable(point.value)) for point in history)
        missing, doubled = len(expected - found.keys()), found.total() - len(found)
        foreign = len(found.keys() - expected)
        if missing or doubled or foreign:
            lines.append(f"metric {key}: {missing} points missing, {doubled} doubled, {foreign} not in the record")
    return lines + _missing_files(store, run_dir, run_id, files)


def _missing_files(store: Store, run_dir: Path, run_id: str, files: dict[str, Record]) -> list[str]:
    found: dict[str, int | None] = {}
    for folder in {str(PurePosixPath(path).parent) for path in files}:
        listed = store.client.list_artifacts(run_id, None if folder == "." else folder)
        found |= {item.path: item.file_size for item in listed}

    def was_removed(path: str, record: Record) -> bool:
        is_gone = path not in found and not (run_dir / record["path"]).exists()
        return is_gone and record["folder"] == CHECKPOINT_FOLDER

    return [
        f"file {path}: size {found.get(path)}, expected {record['size']}"
        for path, record in files.items()
        if found.get(path) != record["size"] and not was_removed(path, record)
    ]


def _comparable(value: float) -> float | str:
    return "nan" if math.isnan(value) else value
