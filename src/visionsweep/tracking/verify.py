"""Compares a run's journal, and a sweep's directory, with what a tracking store gives back."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.journal import Record, read_journal
from visionsweep.rundir.layout import CHECKPOINTS, JOURNAL, REPORT
from visionsweep.tracking.ack import artifact_record, load_ack
from visionsweep.tracking.entities import finite_or_nan, param_value, safe_key
from visionsweep.tracking.parent import FILES, best_points, ended_trials, search_params
from visionsweep.tracking.store import STATE_TAG, Store

# Step, time in ms, value; NaN as text, since it differs from itself.
Point = tuple[int, int, float | str]


def differences(store: Store, run_dir: Path) -> list[str]:
    """Return one line for each metric, parameter and file that is missing, doubled or different.

    A checkpoint that neither the store nor the run's directory has is no difference: a sweep
    deletes those of all but its best runs.
    """
    ack = load_ack(run_dir, store.uri)
    run_id = str(ack.run_id)
    stored = store.client.get_run(run_id).data
    records = read_journal(run_dir)
    params: dict[str, str] = {}
    for record in records:
        for key, value in record.get("params", {}).items():
            params[safe_key(key)] = param_value(value)
    artifacts = [record for record in records if record["type"] == "artifact"] + ack.pictures
    files = {
        str(PurePosixPath(record["folder"]) / Path(record["path"]).name): record
        for record in artifacts
    }
    lines = [
        f"parameter {key}: {stored.params.get(key)!r}, expected {value!r}"
        for key, value in params.items()
        if stored.params.get(key) != value
    ]
    if ack.state is not None and stored.tags.get(STATE_TAG) != ack.state:
        lines.append(f"state: {stored.tags.get(STATE_TAG)!r}, expected {ack.state!r}")
    # Points that a power cut took from the journal are in the store all the same.
    lines += _wrong_metrics(store, run_id, records, allows_more=ack.num_cuts > 0)
    return lines + _wrong_files(store, run_dir, run_id, files)


def sweep_differences(store: Store, sweep_dir: Path) -> list[str]:
    """Return one line for each metric, parameter and file of a sweep's own run that differs.

    Of a parameter only the name is compared: the space of a study may be extended, while MLflow
    keeps the first value.
    """
    record = read_sweep(sweep_dir)
    lines = [
        f"trial {trial.number}: {trial.directory}/{JOURNAL} is missing, so nothing of it was sent"
        for trial in record.trials
        if trial.state in ("complete", "pruned")
        and not (sweep_dir / trial.directory / JOURNAL).exists()
    ]
    run_id = load_ack(sweep_dir, store.uri).run_id
    if run_id is None:
        return [*lines, "the run of the sweep is missing"]
    stored = store.client.get_run(run_id).data
    params = map(safe_key, search_params(sweep_dir, record))
    lines += [f"parameter {key}: missing" for key in params if key not in stored.params]
    lines += _wrong_metrics(store, run_id, best_points(record, ended_trials(record)))
    names = [name for name in (REPORT, *FILES) if (sweep_dir / name).is_file()]
    files = {name: artifact_record(sweep_dir, name) for name in names}
    return lines + _wrong_files(store, sweep_dir, run_id, files)


def _wrong_metrics(
    store: Store, run_id: str, records: Iterable[Record], *, allows_more: bool = False
) -> list[str]:
    points: dict[str, set[Point]] = {}
    for record in records:
        for key, value in record.get("values", {}).items():
            point = (record["step"], record["time"], _comparable(finite_or_nan(value)))
            points.setdefault(safe_key(key), set()).add(point)
    lines = []
    for key, expected in points.items():
        history = store.client.get_metric_history(run_id, key)
        found = Counter(
            (point.step, point.timestamp, _comparable(point.value)) for point in history
        )
        missing, doubled = len(expected - found.keys()), found.total() - len(found)
        foreign = 0 if allows_more else len(found.keys() - expected)
        if missing or doubled or foreign:
            counts = f"{missing} points missing, {doubled} doubled, {foreign} not in the record"
            lines.append(f"metric {key}: {counts}")
    return lines


def _wrong_files(store: Store, run_dir: Path, run_id: str, files: dict[str, Record]) -> list[str]:
    found: dict[str, int | None] = {}
    for folder in {str(PurePosixPath(path).parent) for path in files}:
        listed = store.client.list_artifacts(run_id, None if folder == "." else folder)
        found |= {item.path: item.file_size for item in listed}

    def was_removed(path: str, record: Record) -> bool:
        is_gone = path not in found and not (run_dir / record["path"]).exists()
        return is_gone and record["folder"] == CHECKPOINTS

    return [
        f"file {path}: size {found.get(path)}, expected {record['size']}"
        for path, record in files.items()
        if found.get(path) != record["size"] and not was_removed(path, record)
    ]


def _comparable(value: float) -> float | str:
    return "nan" if math.isnan(value) else value
