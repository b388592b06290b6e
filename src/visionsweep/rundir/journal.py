"""The journal of a run: JSON lines, appended by the trainer, read by the uploader.

The journal is the truth and MLflow a view of it. Each record is one `write`, so it survives the
death of the process; `sync` makes it survive that of the machine. Imports neither MLflow nor torch.
"""

import errno
import hashlib
import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from visionsweep.rundir.atomic import flush_to_disk
from visionsweep.rundir.layout import CHECKPOINTS, JOURNAL
from visionsweep.rundir.usable import refuse_link
from visionsweep.text import mask_passwords

# Old names, until tracking/ uses those of the layout.
JOURNAL_NAME = JOURNAL
CHECKPOINT_FOLDER = CHECKPOINTS

RUN_NAME_TAG = "mlflow.runName"  # a later value renames the run

Record = dict[str, Any]
State = Literal["finished", "stopped", "failed", "pruned"]

# What readers rely on; a record without it is damaged.
_FIELDS: dict[str, dict[str, type]] = {
    "start": {"uid": str, "name": str, "experiment": str, "params": dict, "tags": dict},
    "resume": {"tags": dict},
    "tags": {"tags": dict},
    "metrics": {"step": int, "values": dict},
    "system": {"step": int, "values": dict},
    "artifact": {"path": str, "folder": str, "sha256": str, "size": int},
    "datasets": {"datasets": list},
    "model": {"checkpoint": str},
    "end": {"state": str},
}

log = logging.getLogger(__name__)


class Journal:
    """Appends records to the journal of a run, each with its time (ms since 1970) and writer's pid.

    Times are stamped here, never by the reader: MLflow takes a metric that is sent again with the
    same time for the same point. ``previous`` holds the records of earlier processes, oldest first.
    """

    def __init__(self, run_dir: Path) -> None:
        """Open for appending. Cuts off a last line that a killed writer left incomplete."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self._run_dir = run_dir
        path = run_dir / JOURNAL
        refuse_link(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._pid = os.getpid()
        _cut_torn_line(self._fd)
        self.previous = read_journal(run_dir)
        self._is_started = any(record["type"] == "start" for record in self.previous)

    def start(
        self, name: str, experiment: str, params: Mapping[str, object], tags: Mapping[str, str]
    ) -> None:
        """Give the run its uid, name, MLflow experiment, parameters (dotted key -> value) and tags.

        A resumed run keeps its uid, name and parameters; only the new pid and tags are recorded.
        """
        where = {"host": socket.gethostname(), "tags": _plain(tags)}
        if self._is_started:
            self._append("resume", where)
            return
        self._append(
            "start",
            {
                "uid": uuid.uuid4().hex,
                "name": name,
                "experiment": experiment,
                "params": {key: _plain(value) for key, value in params.items()},
                **where,
            },
        )
        self._is_started = True

    def metrics(self, step: int, values: Mapping[str, float], time_ms: int | None = None) -> None:
        """Record scalars of one step. NaN and infinities become strings, since JSON has none."""
        self._append(
            "metrics",
            {"step": step, "values": {key: _number(value) for key, value in values.items()}},
            time_ms,
        )

    def artifact(self, path: str, folder: str = "") -> None:
        """Record a finished file, `path` relative to the run's directory, for MLflow's `folder`.

        Reads the file once for its SHA-256. Record it again if its content changes.
        """
        with (self._run_dir / path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        self._append("artifact", {"path": path, "folder": folder, "sha256": sha256, "size": size})

    def datasets(self, datasets: Iterable[Mapping[str, object]]) -> None:
        """Record the data sets: name, digest (up to 36 characters), context, source, profile."""
        self._append("datasets", {"datasets": [_plain(dataset) for dataset in datasets]})

    def system(self, step: int, values: Mapping[str, float]) -> None:
        """Record a sample of the machine's load; `step` counts the samples. Thread-safe."""
        self._append(
            "system",
            {"step": step, "values": {key: _number(value) for key, value in values.items()}},
        )

    def model(self, checkpoint: str, step: int = 0, register: str | None = None) -> None:
        """Ask for an MLflow model of `checkpoint` (relative path) with the metrics of `step`.

        ``register``: the name of a registered model; this becomes its newest version, `champion`.
        """
        self._append("model", {"checkpoint": checkpoint, "step": step, "register": register})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run; later values replace earlier ones."""
        self._append("tags", {"tags": _plain(values)})

    def end(self, state: State) -> None:
        """Record how the run ended, and wait until the disk has everything."""
        self._append("end", {"state": state})
        self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything recorded so far (fsync): per epoch, not per record."""
        flush_to_disk(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append(self, kind: str, fields: Record, time_ms: int | None = None) -> None:
        stamp = time.time_ns() // 1_000_000 if time_ms is None else time_ms
        record = {"type": kind, "time": stamp, "pid": self._pid, **fields}
        line = orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE)
        written = os.write(self._fd, line)
        if written != len(line):
            # A full disk took a part of the line. Cut it off: each record has a line of its own.
            os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_END) - written)
            path = str(self._run_dir / JOURNAL)
            raise OSError(errno.ENOSPC, "no space left for the record", path)


def read_journal(run_dir: Path) -> list[Record]:
    """Return the complete records of a run, oldest first; none if it has no journal."""
    records: list[Record] = []
    offset = 0
    while True:
        chunk, end = read_records(run_dir, offset)
        if end == offset:
            return records
        records += chunk
        offset = end


def read_records(
    run_dir: Path, offset: int, limit: int = 1 << 20, damaged: list[str] | None = None
) -> tuple[list[Record], int]:
    """Return the complete records from byte `offset`, about `limit` bytes, and where they end.

    Skips damaged lines: adds them to `damaged`, or else warns.
    """
    try:
        with (run_dir / JOURNAL).open("rb") as file:
            file.seek(offset)
            block = file.read(limit)
            if b"\n" not in block:
                block += file.readline()
    except FileNotFoundError:
        return [], offset
    block = block[: block.rfind(b"\n") + 1]
    return list(_parse(block, run_dir, damaged)), offset + len(block)


def recorded_steps(records: Iterable[Record]) -> set[int]:
    """Return the steps that have metrics."""
    return {record["step"] for record in records if record["type"] == "metrics"}


def _parse(block: bytes, run_dir: Path, damaged: list[str] | None) -> Iterable[Record]:
    for line in block.split(b"\n")[:-1]:
        try:
            record = orjson.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and _is_whole(record):
            yield record
        elif damaged is not None:
            damaged.append(f"{line[:40]!r}")
        else:
            log.warning("%s: skipped a damaged line: %.80r", run_dir / JOURNAL, line)


def _is_whole(record: Record) -> bool:
    fields = {"time": int, "type": str} | _FIELDS.get(record.get("type", ""), {})
    if not all(isinstance(record.get(name), kind) for name, kind in fields.items()):
        return False
    return all(_is_number(value) for value in record.get("values", {}).values())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or value in ("nan", "inf", "-inf")


def _cut_torn_line(fd: int) -> None:
    end = os.lseek(fd, 0, os.SEEK_END)
    start = end
    while start > 0:
        start = max(0, start - 65536)
        newline = os.pread(fd, 65536, start).rfind(b"\n")
        if newline >= 0:
            start += newline + 1
            break
    if start < end:
        os.ftruncate(fd, start)


def _number(value: float) -> float | str:
    number = float(value)  # the encoder does not know NumPy's scalars
    return number if math.isfinite(number) else repr(number)


def _plain(value: object) -> object:
    """Return a value with valid JSON and without passwords, at any depth.

    NaN and infinities become strings.
    """
    if isinstance(value, str):
        return mask_passwords(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
