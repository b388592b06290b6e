"""What a tracking store already has of one run: `.mlflow.json` in the run's directory, one entry a store.

Knows nothing of MLflow. Losing the file loses nothing: everything is sent again, and changes nothing.
"""

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.journal import JOURNAL_NAME, Record

ACK_NAME = ".mlflow.json"
LOCK_NAME = ".mlflow.lock"
_SEED = "seed_"  # begins the name of one of several runs of a trial


@dataclass
class Ack:
    """One store's copy of one run."""

    run_id: str | None = None
    uid: str | None = None
    offset: int = 0  # bytes of the journal that were taken up
    writer: Record = field(default_factory=dict)  # pid, host and time of the last start or resume
    last_time: int = 0  # of the last record, ms since 1970
    files: dict[str, Record] = field(
        default_factory=dict
    )  # path -> artifact record still to be sent
    sent: dict[str, str] = field(default_factory=dict)  # path -> sha256 of what was sent
    model: Record | None = None  # still to be exported
    model_attempts: int = 0
    end: Record | None = None  # still to be told
    state: str | None = (
        None  # what the store was told: finished, ..., or killed; None while it runs
    )
    is_deleted: bool = False  # somebody deleted the run in MLflow: it is left alone
    lost: list[str] = field(default_factory=list)  # what cannot be sent, with the reason
    removed: list[str] = field(
        default_factory=list
    )  # checkpoints that were removed before they could be sent

    @property
    def num_pending(self) -> int:
        """Things taken from the journal that the store does not have yet."""
        return len(self.files) + (self.model is not None) + (self.end is not None)


def load_ack(run_dir: Path, uri: str) -> Ack:
    """Return the entry of `uri`; a new one if there is none, or if the file is damaged."""
    entry = _read(run_dir).get(without_password(uri))
    try:
        return Ack(**entry) if isinstance(entry, dict) else Ack()
    except TypeError:  # written by another version: start over, which is safe
        return Ack()


def save_ack(run_dir: Path, uri: str, ack: Ack) -> None:
    """Replace the entry of `uri`, atomically."""
    entries = _read(run_dir)
    entries[without_password(uri)] = asdict(ack)
    write_text(run_dir / ACK_NAME, json.dumps(entries, ensure_ascii=False))


def known_uris(run_dir: Path) -> list[str]:
    """Return the stores that the run was, or should have been, sent to; passwords are masked."""
    return sorted(_read(run_dir))


def num_behind(run_dir: Path, uri: str) -> int:
    """Return how many records of the run the store does not have yet."""
    ack = load_ack(run_dir, uri)
    return 0 if ack.is_deleted else count_lines(run_dir, ack.offset) + ack.num_pending


def count_lines(run_dir: Path, offset: int = 0) -> int:
    """Return the number of complete journal lines after byte `offset`."""
    try:
        with (run_dir / JOURNAL_NAME).open("rb") as file:
            file.seek(offset)
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def run_directories(directory: Path) -> list[Path]:
    """Return `directory` itself if it is a run's, else the runs in it: NAME or NUMBER, or NUMBER/seed_K.

    No run is there twice: a sweep's `best` is a link to one of its own.
    """
    if (directory / JOURNAL_NAME).exists():
        return [directory]
    runs: list[Path] = []
    for child in directory.iterdir() if directory.is_dir() else ():
        if child.is_symlink() and child.resolve().is_relative_to(directory.resolve()):
            continue
        if (child / JOURNAL_NAME).exists():
            runs.append(child)
        elif child.name.isdigit():
            runs += [journal.parent for journal in child.glob(f"{_SEED}*/{JOURNAL_NAME}")]
    return sorted(
        runs, key=lambda run: [(len(part), part) for part in run.relative_to(directory).parts]
    )  # 2 before 10


def holds_sweep(directory: Path) -> bool:
    """Return whether the runs in `directory` are those of a sweep, and so numbered.

    Neither a run's directory is one, nor a trial's with several seeds, nor one of single runs such as `outputs`.
    """
    runs = run_directories(directory)
    return (
        bool(runs)
        and directory not in runs
        and all(run.relative_to(directory).parts[0].isdigit() for run in runs)
    )


def sweep_directory(run_dir: Path) -> Path:
    """Return where the sweep of a run would be: above NUMBER, or above NUMBER/seed_K."""
    is_seed = run_dir.name.startswith(_SEED) and run_dir.parent.name.isdigit()
    return run_dir.parent.parent if is_seed else run_dir.parent


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[bool]:
    """Yield whether this process alone may send the run now; never waits."""
    with (run_dir / LOCK_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def without_password(uri: str) -> str:
    """Return the URI with its password as `***`: what may be written to a file or a terminal."""
    return re.sub(r"^([\w+]+://[^/@:]*):[^@]*@", r"\1:***@", uri)


def _read(run_dir: Path) -> dict[str, object]:
    try:
        entries = json.loads((run_dir / ACK_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
