"""What each tracking store already has of one run: `.mlflow.json` in the run's directory.

Knows nothing of MLflow. Losing the file loses nothing: sending everything again changes nothing.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.journal import Record
from visionsweep.rundir.layout import (
    BEST,
    FIGURES,
    JOURNAL,
    PREDICTIONS,
    RESULT,
    UPLOADED,
    UPLOADED_LOCK,
    file_inside,
    is_first_of_trial,
    is_inside,
    run_directories,
    sweep_directory,
)
from visionsweep.rundir.lock import try_lock_file
from visionsweep.text import mask_passwords

_TAIL_BYTES = 256  # records have times, so that no two are alike


@dataclass
class Ack:
    """One store's copy of one run."""

    run_id: str | None = None
    page: str | None = None  # address of the runs table in our view, relative to the server
    uid: str | None = None
    offset: int = 0  # bytes of the journal that were read
    tail: str | None = None  # hash of the last of them
    num_cuts: int = 0  # how often the journal was found shorter than what was sent
    writer: Record = field(default_factory=dict)  # pid, host and time of the last start or resume
    last_time: int = 0  # of the last record, ms since 1970
    files: dict[str, Record] = field(default_factory=dict)  # path -> artifact record to be sent
    sent: dict[str, str] = field(default_factory=dict)  # path -> sha256 of what was sent
    model: Record | None = None  # to be exported
    model_attempts: int = 0
    end: Record | None = None  # to be sent
    state: str | None = None  # in the store: finished, ..., or killed; None while the run lasts
    deleted: str | None = None  # somebody deleted the run or its experiment: how to mend it
    lost: list[str] = field(default_factory=list)  # what cannot be sent, with the reason
    removed: list[str] = field(default_factory=list)  # checkpoints deleted before they were sent
    pictures_of: str | None = None  # the `picture_source` that the pictures were drawn from
    pictures: list[Record] = field(default_factory=list)  # their artifact records, all sent

    @property
    def num_pending(self) -> int:
        """Return how much was read from the journal and not sent yet."""
        return len(self.files) + (self.model is not None) + (self.end is not None)

    def send_again(self) -> None:
        """Have everything sent once more: what arrived stays as it is, what did not may now."""
        self.offset, self.tail, self.files, self.lost = 0, None, {}, []
        self.model, self.model_attempts, self.end = None, 0, None


def load_ack(run_dir: Path, uri: str) -> Ack:
    """Return the entry of `uri`; a new one if there is none or the file is damaged.

    If the journal is not the one that was read, as after a power cut, all of it is sent again.
    """
    entry = _read(run_dir).get(mask_passwords(uri))
    if not isinstance(entry, dict):
        return Ack()
    ack = Ack()
    for each in fields(Ack):  # others are of another version
        value, default = entry.get(each.name), getattr(ack, each.name)
        if default is None or isinstance(value, type(default)):
            setattr(ack, each.name, value)
    if not _is_same_journal(run_dir, ack):
        ack.send_again()
        ack.num_cuts += 1
    return ack


def save_ack(run_dir: Path, uri: str, ack: Ack) -> None:
    """Replace the entry of `uri`, atomically."""
    entries = _read(run_dir)
    entries[mask_passwords(uri)] = asdict(ack)
    write_text(run_dir / UPLOADED, json.dumps(entries, ensure_ascii=False))


def ensure_ack(run_dir: Path, uri: str) -> None:
    """Note that this store should have the run, even if it is never reached."""
    with try_lock_file(run_dir / UPLOADED_LOCK) as is_mine:
        if is_mine and mask_passwords(uri) not in known_uris(run_dir):
            save_ack(run_dir, uri, Ack())


def known_uris(run_dir: Path) -> list[str]:
    """Return the stores that have, or should have, the run, the first one first.

    Passwords are masked.
    """
    return list(_read(run_dir))


def num_behind(directory: Path, uri: str) -> int:
    """Return how many records and files of a run, or of a sweep's runs, the store lacks.

    The pictures of a run count as one, and so does each thing that could not be sent.
    """
    total = 0
    for run_dir in run_directories(directory):
        ack = load_ack(run_dir, uri)
        total += count_lines(run_dir, ack.offset) + ack.num_pending + len(ack.lost)
        total += ack.deleted is None and are_pictures_due(run_dir, ack)
    return total


def unsent(directory: Path, uri: str) -> list[str]:
    """Return one line for each thing that could not be sent of a run, or of a sweep's runs."""
    runs = ((run_dir, load_ack(run_dir, uri)) for run_dir in run_directories(directory))
    return [f"{run_dir}: {reason}" for run_dir, ack in runs for reason in ack.lost]


def page_of(directory: Path, uri: str) -> str | None:
    """Return the address of MLflow's table of runs that a run, or a sweep's runs, stand in.

    Relative to the server; None as long as nothing was sent.
    """
    places = (directory, *run_directories(directory), sweep_directory(directory.resolve()))
    return next((page for place in places if (page := load_ack(place, uri).page)), None)


def journal_tail(run_dir: Path, offset: int) -> str | None:
    """Return the hash of what stands before byte `offset` of the journal; None if it is no line."""
    try:
        with (run_dir / JOURNAL).open("rb") as file:
            file.seek(max(0, offset - _TAIL_BYTES))
            block = file.read(min(offset, _TAIL_BYTES))
    except FileNotFoundError:
        return None
    is_line = len(block) == min(offset, _TAIL_BYTES) and block.endswith(b"\n")
    return hashlib.sha256(block).hexdigest()[:16] if is_line else None


def count_lines(run_dir: Path, offset: int = 0) -> int:
    """Return the number of complete journal lines after byte `offset`."""
    try:
        with (run_dir / JOURNAL).open("rb") as file:
            file.seek(offset)
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def are_pictures_due(run_dir: Path, ack: Ack) -> bool:
    """Return whether pictures of the run can be drawn that the store does not have."""
    source = picture_source(run_dir)
    may_be_drawn = ack.state in (None, "finished")  # None: the end was not sent yet
    return may_be_drawn and source not in (None, ack.pictures_of)


def picture_source(run_dir: Path) -> str | None:
    """Return which version of the predictions a run's pictures are drawn from.

    None if they are not drawn: the run has not finished, its weights are gone, as those of all but
    the best trials of a sweep are, or its trial has pictures of an earlier seed or fold. Pictures
    of 25 runs took longer than a user waits for an upload.
    """
    if not is_first_of_trial(run_dir):
        return None
    predictions, *others = (file_inside(run_dir, name) for name in (PREDICTIONS, RESULT, BEST))
    if predictions is None or None in others or not is_inside(run_dir, FIGURES):
        return None
    found = predictions.stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


def artifact_record(directory: Path, path: str, folder: str = "") -> Record:
    """Describe a file as the journal's artifact records do; `path` is relative to the directory."""
    with (directory / path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": path, "folder": folder, "sha256": sha256, "size": file.tell()}


def _is_same_journal(run_dir: Path, ack: Ack) -> bool:
    if ack.offset == 0:
        return True
    tail = journal_tail(run_dir, ack.offset)
    return tail is not None and ack.tail in (None, tail)  # None: of an earlier version


def _read(run_dir: Path) -> dict[str, object]:
    try:
        entries = json.loads((run_dir / UPLOADED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
