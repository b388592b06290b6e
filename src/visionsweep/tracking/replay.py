"""Sends the journal of one run to a tracking store.

Whatever cuts it off, sending again loses nothing and doubles nothing.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from visionsweep.rundir.journal import Record, read_records
from visionsweep.rundir.layout import (
    CHECKPOINTS,
    JOURNAL,
    UPLOADED_LOCK,
    sweep_directory,
)
from visionsweep.rundir.lock import try_lock_file
from visionsweep.tracking.ack import (
    Ack,
    are_pictures_due,
    count_lines,
    load_ack,
    save_ack,
)
from visionsweep.tracking.export import export_model
from visionsweep.tracking.pictures import send_pictures
from visionsweep.tracking.store import RunDeletedError, RunMissingError, Store
from visionsweep.tracking.writer import is_writer_alive

MAX_MODEL_ATTEMPTS = 3

log = logging.getLogger(__name__)


class RunReplay:
    """One run and one store. Each method sends a part under the run's lock, and saves what it sent.

    `parent_run_id` is the MLflow run of the sweep, `experiment` overrides the one in the journal.
    """

    def __init__(
        self,
        run_dir: Path,
        store: Store,
        experiment: str | None = None,
        parent_run_id: str | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.failures = 0  # in a row; the caller serves the other runs first
        self.holds_checkpoints = False  # set while a sweep may still delete them
        self._store = store
        self._experiment = experiment
        self._parent_run_id = parent_run_id
        self._is_checked = False
        self.ack = load_ack(run_dir, store.uri)

    @property
    def behind(self) -> int:
        """Return how many records and files the store does not have yet, pictures aside."""
        ack = load_ack(self.run_dir, self._store.uri)
        if ack.is_deleted:
            return 0
        return count_lines(self.run_dir, ack.offset) + ack.num_pending - self._num_held

    @property
    def has_unsent(self) -> bool:
        """Return the same as a yes or no, as far as this process knows; costs next to nothing."""
        if self.ack.is_deleted:
            return False
        size = (self.run_dir / JOURNAL).stat().st_size
        return size > self.ack.offset or self.ack.num_pending > self._num_held

    @property
    def is_open(self) -> bool:
        """Return whether the store has the run as running."""
        return self.ack.run_id is not None and self.ack.state is None and not self.ack.is_deleted

    @property
    def is_writer_alive(self) -> bool:
        """Return whether the process that started or resumed the run may still write."""
        return is_writer_alive(self.run_dir, self.ack.writer)

    def record_failure(self) -> None:
        """Count a failed attempt; the next one checks first whether the run still exists."""
        self.failures += 1
        self._is_checked = False

    def send_records(self) -> None:
        """Send everything but files, models and the final state."""
        with self._locked() as is_mine:
            if not (is_mine and self._check()):
                return
            while True:
                records, offset = read_records(self.run_dir, self.ack.offset)
                if offset == self.ack.offset:
                    return
                self._send_chunk(records)
                if self.ack.is_deleted:
                    return
                self.ack.offset = offset
                self._save()
                self.failures = 0

    def send_next_file(self) -> bool:
        """Send the smallest pending file, or else the model; return False if there is neither."""
        with self._locked() as is_mine:
            if not is_mine or self.ack.is_deleted or self.ack.run_id is None:
                return False
            files = [record for record in self.ack.files.values() if not self._is_held(record)]
            if files:
                self._send_file(min(files, key=lambda record: int(record["size"])))
            elif self.ack.model is not None:
                self._send_model(self.ack.model)
            else:
                return False
            self._save()
            return True

    def send_end(self) -> None:
        """Send the final state once nothing else is pending."""
        with self._locked() as is_mine:
            end = self.ack.end
            if not is_mine or end is None or self.ack.is_deleted:
                return
            if self.ack.num_pending - self._num_held == 1:
                self._set_ended(end["state"], end["time"])

    def mark_killed(self) -> None:
        """Mark the run as killed if its process died before the end and all records are sent."""
        with self._locked() as is_mine:
            # Not `has_unsent`: the line that the process died in never becomes a record.
            if is_mine and self.is_open and self.behind == 0 and not self.is_writer_alive:
                self._set_ended("killed", self.ack.last_time)

    def send_pictures(self) -> None:
        """Draw the pictures of a finished run and send them, unless the store has them."""
        with self._locked() as is_mine:
            if not (is_mine and self._needs_pictures and self._check()):
                return
            if self._needs_pictures:  # not if the store turned out to have lost the run
                send_pictures(self._store, self.run_dir, self.ack)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the run's lock, with the newest ack, if it is free; yields whether it is."""
        with try_lock_file(self.run_dir / UPLOADED_LOCK) as is_mine:
            if is_mine:
                self.ack = load_ack(self.run_dir, self._store.uri)
            yield is_mine

    @property
    def _num_held(self) -> int:
        return sum(map(self._is_held, self.ack.files.values()))

    def _is_held(self, record: Record) -> bool:
        return self.holds_checkpoints and bool(record["folder"] == CHECKPOINTS)

    @property
    def _needs_pictures(self) -> bool:
        has_finished = self.ack.state == "finished" and not self.ack.is_deleted
        return has_finished and are_pictures_due(self.run_dir, self.ack)

    def _check(self) -> bool:
        """Look once whether the store still has the run; start over in a new database.

        Returns False if somebody deleted the run in MLflow.
        """
        if not self._is_checked:
            self._is_checked = True
            self._find_run()
        return not self.ack.is_deleted

    def _find_run(self) -> None:
        self.ack.is_deleted = False
        if self.ack.run_id is None:
            return
        try:
            self._store.check_run(self.ack.run_id, str(self.ack.uid))
        except RunMissingError:
            log.warning("%s: the run is not in %s; sending it again", self.run_dir, self._store.uri)
            self.ack = Ack()
        except RunDeletedError as error:
            log.warning("%s: %s", self.run_dir, error)
            self.ack.is_deleted = True
        self._save()

    def _send_chunk(self, records: list[Record]) -> None:
        """Send consecutive records of the journal; files, models and the end become pending."""
        ack = self.ack
        start: Record = {}
        metrics: list[Record] = []
        datasets: list[Record] = []
        tags: dict[str, str] = {}
        for record in records:
            ack.last_time = max(ack.last_time, record["time"])
            tags.update(record.get("tags", {}))
            match record["type"]:
                case "start":
                    start = record
                case "resume":
                    ack.end = None
                case "metrics" | "system":
                    metrics.append(record)
                case "datasets":
                    datasets = record["datasets"]
                case "artifact":
                    ack.files[record["path"]] = record
                case "model":
                    ack.model, ack.model_attempts = record, 0
                case "end":
                    ack.end = record
            if record["type"] in ("start", "resume"):
                ack.writer = {key: record[key] for key in ("pid", "host", "time")}
        if ack.run_id is None and not self._create_run(start):
            return
        run_id = str(ack.run_id)
        if ack.state is not None and any(record["type"] == "resume" for record in records):
            self._store.set_running(run_id)
            ack.state = None
        if datasets:
            self._store.log_datasets(run_id, datasets)
        self._record_lost(self._store.log(run_id, metrics, start.get("params"), tags))

    def _create_run(self, start: Record) -> bool:
        """Find or create the MLflow run; False if it cannot be created or somebody deleted it."""
        if not start:
            self._record_lost([f"{JOURNAL} does not begin with a start record"])
            return False
        tags = dict(start["tags"])
        if self._parent_run_id is not None:
            sweep = sweep_directory(self.run_dir.resolve()).name
            tags |= {"mlflow.parentRunId": self._parent_run_id, "visionsweep.sweep": sweep}
        self.ack.uid = start["uid"]
        experiment = self._experiment or start["experiment"]
        try:
            self.ack.run_id = self._store.ensure_run(
                experiment, start["uid"], start["name"], start["time"], tags
            )
        except RunDeletedError as error:
            log.warning("%s: %s", self.run_dir, error)
            self.ack = Ack(is_deleted=True)
            self._save()
            return False
        return True

    def _send_file(self, record: Record) -> None:
        path, ack = record["path"], self.ack
        is_checkpoint = record["folder"] == CHECKPOINTS
        if ack.sent.get(path) != record["sha256"]:
            local = self.run_dir / path
            if local.is_file():
                self._store.log_file(
                    str(ack.run_id), local, record["folder"], may_link=is_checkpoint
                )
                ack.sent[path] = record["sha256"]
            elif is_checkpoint:
                log.info("%s: %s was deleted before it was sent", self.run_dir, path)
                ack.removed = sorted({*ack.removed, path})
            else:
                self._record_lost([f"{path}: the file is no longer there"])
        del ack.files[path]

    def _send_model(self, record: Record) -> None:
        self.ack.model_attempts += 1
        self._save()  # before the attempt, which may be what kills this process
        try:
            export_model(self._store, str(self.ack.run_id), self.run_dir, record)
        except Exception as error:
            # If the server answers (export_model asks it first), the third failure is the model's.
            log.exception("%s: the export of %s failed", self.run_dir, record["checkpoint"])
            if self.ack.model_attempts < MAX_MODEL_ATTEMPTS:
                raise
            self._store.log(str(self.ack.run_id), tags={"visionsweep.model_error": f"{error}"})
            self._record_lost([f"model of {record['checkpoint']}: {error}"])
        self.ack.model = None

    def _set_ended(self, state: str, end_ms: int) -> None:
        self._store.set_ended(str(self.ack.run_id), state, end_ms)
        self.ack.state, self.ack.end = state, None
        self._save()

    def _record_lost(self, lost: list[str]) -> None:
        for line in lost:
            log.warning("%s: not sent: %s", self.run_dir, line)
            if line not in self.ack.lost:
                self.ack.lost.append(line)

    def _save(self) -> None:
        save_ack(self.run_dir, self._store.uri, self.ack)
