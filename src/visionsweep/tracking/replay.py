"""Sends the journal of one run to a tracking store.

Whatever cuts it off, sending again loses nothing and doubles nothing.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from visionsweep.rundir.journal import Record, read_records
from visionsweep.rundir.layout import (
    CHECKPOINTS,
    JOURNAL,
    UPLOADED_LOCK,
    file_inside,
    is_inside,
    sweep_directory,
)
from visionsweep.rundir.lock import try_lock_file
from visionsweep.tracking.ack import (
    Ack,
    are_pictures_due,
    count_lines,
    journal_tail,
    load_ack,
    save_ack,
)
from visionsweep.tracking.export import export_model, why_not_exported
from visionsweep.tracking.pictures import send_pictures
from visionsweep.tracking.store import RunDeletedError, RunMissingError, Store
from visionsweep.tracking.views import ALL_RUNS, SWEEP_NAME_TAG, SWEEP_RUN_TAG
from visionsweep.tracking.writer import is_writer_alive

MAX_MODEL_ATTEMPTS = 3  # that ended this process
CHUNK_BYTES = 1 << 15  # of the journal: about one request, after which progress is saved
RECHECK_SECONDS = 30.0  # whether what was deleted in MLflow is back

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
        self.num_done = 0  # parts that this process has sent
        self._is_checked = False
        self._is_retried = False
        self._checked = float("-inf")  # time.monotonic()
        self.ack = load_ack(run_dir, store.uri)

    @property
    def behind(self) -> int:
        """Return how many records and files are still to be sent, pictures aside.

        None of a run that was deleted in MLflow: nobody needs to wait for it.
        """
        ack = load_ack(self.run_dir, self._store.uri)
        if ack.deleted is not None:
            return 0
        return count_lines(self.run_dir, ack.offset) + ack.num_pending - self._num_held

    @property
    def has_unsent(self) -> bool:
        """Return the same as a yes or no, as far as this process knows; costs next to nothing."""
        if self.ack.deleted is not None:
            return time.monotonic() > self._checked + RECHECK_SECONDS
        size = (self.run_dir / JOURNAL).stat().st_size
        return size > self.ack.offset or self.ack.num_pending > self._num_held

    @property
    def is_open(self) -> bool:
        """Return whether the store has the run as running."""
        return self._is_known and self.ack.state is None

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
                damaged: list[str] = []
                records, offset = read_records(self.run_dir, self.ack.offset, CHUNK_BYTES, damaged)
                if offset == self.ack.offset:
                    return
                self._send_chunk(records)
                if self.ack.deleted is not None:
                    return
                self._record_lost([f"a damaged line of {JOURNAL}: {line}" for line in damaged])
                self.ack.offset = offset
                self.ack.tail = journal_tail(self.run_dir, offset)
                self._save_sent()

    def send_next_file(self) -> bool:
        """Send the smallest pending file, or else the model; return False if there is neither."""
        with self._locked() as is_mine:
            if not (is_mine and self._is_known):
                return False
            files = [record for record in self.ack.files.values() if not self._is_held(record)]
            if files:
                self._send_file(min(files, key=lambda record: int(record["size"])))
            elif self.ack.model is not None:
                self._send_model(self.ack.model)
            else:
                return False
            self._save_sent()
            return True

    def send_end(self) -> None:
        """Send the final state once nothing else is pending."""
        with self._locked() as is_mine:
            end = self.ack.end
            if not is_mine or end is None or self.ack.deleted is not None:
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
    def _is_known(self) -> bool:
        return self.ack.run_id is not None and self.ack.deleted is None

    @property
    def _num_held(self) -> int:
        return sum(map(self._is_held, self.ack.files.values()))

    def _is_held(self, record: Record) -> bool:
        return self.holds_checkpoints and bool(record["folder"] == CHECKPOINTS)

    @property
    def _needs_pictures(self) -> bool:
        has_finished = self.ack.state == "finished" and self.ack.deleted is None
        return has_finished and are_pictures_due(self.run_dir, self.ack)

    def _check(self) -> bool:
        """Look once whether the store still has the run; start over in a new database.

        Returns False if somebody deleted the run in MLflow.
        """
        is_due = self.ack.deleted is not None and self.has_unsent
        if is_due or not self._is_checked:
            self._is_checked = True
            self._checked = time.monotonic()
            self._find_run()
        return self.ack.deleted is None

    def _find_run(self) -> None:
        self.ack.deleted = None
        if not self._is_retried:  # once per process
            self._is_retried = True
            if self.ack.lost:
                self.ack.send_again()
        if self.ack.run_id is None:
            return
        try:
            self._store.check_run(self.ack.run_id, str(self.ack.uid))
        except RunMissingError:
            log.warning("%s: the run is not in %s; sending it again", self.run_dir, self._store.uri)
            self.ack = Ack()
        except RunDeletedError as error:
            if self._is_in_other_experiment(error):
                self.ack = Ack()
            else:
                self._mark_deleted(error)
        self._save()

    def _is_in_other_experiment(self, error: RunDeletedError) -> bool:
        """Return whether the deleted run is in another experiment than the one asked for now."""
        return self._experiment is not None and self._experiment != error.experiment

    def _mark_deleted(self, error: RunDeletedError) -> None:
        log.warning("%s: %s", self.run_dir, error)
        self.ack.deleted = str(error)

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
            tags |= {"mlflow.parentRunId": self._parent_run_id, SWEEP_RUN_TAG: self._parent_run_id}
            tags[SWEEP_NAME_TAG] = sweep
        self.ack.uid = start["uid"]
        experiment = self._experiment or start["experiment"]
        try:
            self.ack.run_id = self._store.ensure_run(
                experiment, start["uid"], start["name"], start["time"], tags
            )
            if self._parent_run_id is None:
                self.ack.page = self._store.store_view(experiment, ALL_RUNS)
        except RunDeletedError as error:
            self.ack = Ack()
            self._mark_deleted(error)
            self._save()
            return False
        return True

    def _send_file(self, record: Record) -> None:
        path, folder, ack = record["path"], record["folder"], self.ack
        is_checkpoint = folder == CHECKPOINTS
        if not (is_inside(self.run_dir, path) and is_inside(self.run_dir, folder)):
            self._record_lost([f"{path}: lies outside of the run's directory"])
        elif ack.sent.get(path) != record["sha256"]:
            local = file_inside(self.run_dir, path)
            if local is not None:
                self._store.log_file(str(ack.run_id), local, folder, may_link=is_checkpoint)
                ack.sent[path] = record["sha256"]
            elif is_checkpoint:
                log.info("%s: %s was deleted before it was sent", self.run_dir, path)
                ack.removed = sorted({*ack.removed, path})
            else:
                self._record_lost([f"{path}: the file is no longer there"])
        del ack.files[path]

    def _send_model(self, record: Record) -> None:
        """Export the model; try again if the store refuses it. One that cannot be saved is lost."""
        if self.ack.model_attempts >= MAX_MODEL_ATTEMPTS:
            self._lose_model(record, "its export ended the process that tried")
            return
        self.ack.model_attempts += 1
        self._save()  # before the attempt, which may be what kills this process
        try:
            export_model(self._store, str(self.ack.run_id), self.run_dir, record)
        except Exception as error:
            log.exception("%s: the export of %s failed", self.run_dir, record["checkpoint"])
            self.ack.model_attempts -= 1
            self._save()
            reason = why_not_exported(self.run_dir)
            if reason is None:  # the store's failure
                raise
            self._store.log(str(self.ack.run_id), tags={"visionsweep.model_error": f"{error}"})
            self._lose_model(record, reason)
        self.ack.model = None

    def _lose_model(self, record: Record, reason: str) -> None:
        self._record_lost([f"model of {record['checkpoint']}: {reason}"])
        self.ack.model = None

    def _set_ended(self, state: str, end_ms: int) -> None:
        self._store.set_ended(str(self.ack.run_id), state, end_ms)
        self.ack.state, self.ack.end = state, None
        self._save_sent()

    def _record_lost(self, lost: list[str]) -> None:
        for line in lost:
            log.warning("%s: not sent: %s", self.run_dir, line)
            if line not in self.ack.lost:
                self.ack.lost.append(line)

    def _save_sent(self) -> None:
        self.failures = 0
        self.num_done += 1
        self._save()

    def _save(self) -> None:
        save_ack(self.run_dir, self._store.uri, self.ack)
