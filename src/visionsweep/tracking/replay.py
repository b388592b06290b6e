"""Sends the journal of one run to a tracking store; cut off and repeated, it loses and doubles nothing."""

import logging
import socket
from pathlib import Path

import psutil

from visionsweep.rundir.heartbeat import DEAD_SECONDS, seconds_since_alive
from visionsweep.rundir.journal import CHECKPOINT_FOLDER, JOURNAL_NAME, Record, read_records
from visionsweep.tracking.ack import (
    Ack,
    count_lines,
    exclusive,
    load_ack,
    num_behind,
    save_ack,
    sweep_directory,
)
from visionsweep.tracking.export import export_model
from visionsweep.tracking.store import RunDeletedError, RunMissingError, Store

MAX_MODEL_ATTEMPTS = 3

log = logging.getLogger(__name__)


class RunReplay:
    """One run and one store. Each method sends a part, under the run's lock, and saves what was sent.

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
        self.failures = 0  # in a row; the caller serves the others first
        self.holds_checkpoints = (
            False  # they wait: a running sweep removes those of all but its best runs
        )
        self._store = store
        self._experiment = experiment
        self._parent_run_id = parent_run_id
        self._checked = False
        self.ack = load_ack(run_dir, store.uri)

    @property
    def behind(self) -> int:
        """Records and files that the store does not have yet."""
        return num_behind(self.run_dir, self._store.uri) - self._num_held

    @property
    def total(self) -> int:
        """Records in the journal."""
        return count_lines(self.run_dir)

    @property
    def has_news(self) -> bool:
        """Whether there is anything to send, as far as this process knows."""
        if self.ack.is_deleted:
            return False
        size = (self.run_dir / JOURNAL_NAME).stat().st_size
        return size > self.ack.offset or self.ack.num_pending > self._num_held

    @property
    def _num_held(self) -> int:
        return sum(map(self._is_held, self.ack.files.values()))

    def _is_held(self, record: Record) -> bool:
        return self.holds_checkpoints and bool(record["folder"] == CHECKPOINT_FOLDER)

    @property
    def is_writer_alive(self) -> bool:
        """Whether the process that started or resumed the run may still write.

        One on another host, or in another container, counts as dead when it has shown no sign of life for two minutes.
        """
        writer = self.ack.writer
        if not writer:
            return False
        if writer["host"] != socket.gethostname():
            seconds = seconds_since_alive(self.run_dir)
            return seconds is None or seconds < DEAD_SECONDS
        try:
            process = psutil.Process(writer["pid"])
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
            # A pid is used again: a process that was born after the record did not write it.
            return not is_zombie and process.create_time() * 1000 <= writer["time"] + 1000
        except psutil.NoSuchProcess:
            return False

    def note_failure(self) -> None:
        """Look again, before the next attempt, whether the run still exists."""
        self.failures += 1
        self._checked = False

    def send_records(self) -> None:
        """Send everything but files, models and the final state."""
        with exclusive(self.run_dir) as is_mine:
            if not is_mine:
                return
            self.ack = load_ack(self.run_dir, self._store.uri)
            if not self._check():
                return
            while True:
                records, offset = read_records(self.run_dir, self.ack.offset)
                if offset == self.ack.offset:
                    return
                self._take(records)
                if self.ack.is_deleted:
                    return
                self.ack.offset = offset
                self._save()
                self.failures = 0

    def send_next_file(self) -> bool:
        """Send the smallest file that waits, or else the model; return False if there is neither."""
        with exclusive(self.run_dir) as is_mine:
            if not is_mine:
                return False
            self.ack = load_ack(self.run_dir, self._store.uri)
            if self.ack.is_deleted or self.ack.run_id is None:
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
        """Tell the final state, once nothing else waits."""
        with exclusive(self.run_dir) as is_mine:
            if not is_mine:
                return
            self.ack = load_ack(self.run_dir, self._store.uri)
            end = self.ack.end
            if end is None or self.ack.num_pending - self._num_held > 1 or self.ack.is_deleted:
                return
            self._set_ended(end["state"], end["time"])

    def mark_killed(self) -> None:
        """Tell that the process died without a word, if it did and all its records are there."""
        with exclusive(self.run_dir) as is_mine:
            if not is_mine:
                return
            self.ack = load_ack(self.run_dir, self._store.uri)
            is_open = (
                self.ack.run_id is not None and self.ack.state is None and not self.ack.is_deleted
            )
            # Not `has_news`: the line that the process died in never becomes a record.
            if is_open and self.behind == 0 and not self.is_writer_alive:
                self._set_ended("killed", self.ack.last_time)

    def register(self) -> None:
        """Note in the run's directory that this store should have the run, even if it is never reached."""
        with exclusive(self.run_dir) as is_mine:
            if is_mine:
                self.ack = load_ack(self.run_dir, self._store.uri)
                self._save()

    def _check(self) -> bool:
        """See once whether the run is still where the ack says; start over in a new database."""
        if self._checked:
            return not self.ack.is_deleted
        self._checked = True
        if self.ack.run_id is None:
            self.ack.is_deleted = False
            return True
        try:
            self._store.check_run(self.ack.run_id, str(self.ack.uid))
            self.ack.is_deleted = False
        except RunMissingError:
            log.warning("%s: the run is not in %s; sending it again", self.run_dir, self._store.uri)
            self.ack = Ack()
        except RunDeletedError as error:
            log.warning("%s: %s", self.run_dir, error)
            self.ack.is_deleted = True
        self._save()
        return not self.ack.is_deleted

    def _take(self, records: list[Record]) -> None:
        """Send a stretch of the journal; files, models and ends are noted for later."""
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
        if ack.run_id is None and not self._enter(start):
            return
        run_id = str(ack.run_id)
        if ack.state is not None and any(record["type"] == "resume" for record in records):
            self._store.set_running(run_id)
            ack.state = None
        if datasets:
            self._store.log_datasets(run_id, datasets)
        self._note(self._store.log(run_id, metrics, start.get("params"), tags))

    def _enter(self, start: Record) -> bool:
        """Find or create the MLflow run; False if there can be none, or somebody deleted it."""
        if not start:
            self._note([f"{JOURNAL_NAME} does not begin with a start record"])
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
        if ack.sent.get(path) != record["sha256"]:
            local = self.run_dir / path
            if local.is_file():
                is_checkpoint = record["folder"] == CHECKPOINT_FOLDER
                self._store.log_file(
                    str(ack.run_id), local, record["folder"], may_link=is_checkpoint
                )
                ack.sent[path] = record["sha256"]
            elif record["folder"] == CHECKPOINT_FOLDER:
                log.info("%s: %s was removed before it was sent", self.run_dir, path)
                ack.removed = sorted({*ack.removed, path})
            else:
                self._note([f"{path}: the file is no longer there"])
        del ack.files[path]

    def _send_model(self, record: Record) -> None:
        self.ack.model_attempts += 1
        self._save()  # before the attempt, which may be what kills this process
        try:
            export_model(self._store, str(self.ack.run_id), self.run_dir, record)
        except Exception as error:
            # With a server that answers (export_model asks first) the third failure is the model's own.
            log.exception("%s: the export of %s failed", self.run_dir, record["checkpoint"])
            if self.ack.model_attempts < MAX_MODEL_ATTEMPTS:
                raise
            self._store.log(str(self.ack.run_id), tags={"visionsweep.model_error": f"{error}"})
            self._note([f"model of {record['checkpoint']}: {error}"])
        self.ack.model = None

    def _set_ended(self, state: str, end_ms: int) -> None:
        self._store.set_ended(str(self.ack.run_id), state, end_ms)
        self.ack.state, self.ack.end = state, None
        self._save()

    def _note(self, lost: list[str]) -> None:
        for line in lost:
            log.warning("%s: not sent: %s", self.run_dir, line)
            if line not in self.ack.lost:
                self.ack.lost.append(line)

    def _save(self) -> None:
        save_ack(self.run_dir, self._store.uri, self.ack)
