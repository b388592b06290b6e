"""The MLflow run of a sweep, above those of its trials: who won, why, and how it went.

All of it follows from the sweep's directory, so that a lost database is filled again, and repeating it changes nothing.
"""

import hashlib
import json
import logging
import shlex
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from visionsweep.report.sweep.files import yaml_mapping
from visionsweep.report.sweep.leaderboard import description_markdown, leaderboard_table
from visionsweep.report.sweep.page import write_sweep_page
from visionsweep.report.sweep.record import SweepRecord, SweptTrial, read_sweep
from visionsweep.report.sweep.summary import space_rows
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.journal import Record
from visionsweep.rundir.layout import OPTIMIZATION_RESULTS, PRESET, SWEEP, TRIALS
from visionsweep.text import mask_passwords
from visionsweep.tracking.ack import exclusive, load_ack, save_ack
from visionsweep.tracking.store import Store, run_page

SWEEP_UID_NAME = ".sweep_uid"
PAGE = "report.html"
TABLE = "leaderboard.json"
FILES = (SWEEP, TRIALS, OPTIMIZATION_RESULTS, PRESET)  # sent once it is over
UPDATE_SECONDS = 5.0  # while the sweep runs
PAGE_SECONDS = 60.0  # making the page takes a second or two of a core, sending it 2 MB

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Child:
    """The MLflow run of a trial, or of its first seed."""

    run_id: str
    state: str | None  # None while it runs


class SweepParent:
    """The MLflow run under which the runs of a sweep stand."""

    def __init__(self, directory: Path, store: Store, experiment: str) -> None:
        self._directory = directory
        self._store = store
        self._experiment = experiment
        self._run_id: str | None = None
        self._state: str | None = None
        self._seen: object = None  # what the run shows was made of this
        self._num_points = 0  # ended trials whose numbers were sent by this process
        self._updated = self._drawn = float("-inf")  # time.monotonic()

    def ensure(self, start_ms: int | None = None) -> str | None:
        """Return the parent's run id; None while another process is creating it. It began when its first run did."""
        if self._run_id is None:
            with exclusive(self._directory) as is_mine:
                if is_mine:
                    name = self._directory.resolve().name
                    tags = {
                        "visionsweep.sweep": name,
                        "visionsweep.kind": "sweep",
                        "run_dir": str(self._directory),
                    }
                    self._run_id = self._store.ensure_run(
                        self._experiment, self._uid(), name, start_ms, tags
                    )
                    ack = load_ack(self._directory, self._store.uri)
                    if ack.run_id != self._run_id:  # a new database has nothing of what was sent
                        ack.run_id, ack.sent = self._run_id, {}
                        save_ack(self._directory, self._store.uri, ack)
        return self._run_id

    def forget(self) -> None:
        """Look again, before the next update, whether the run still exists, and send everything again."""
        self._run_id, self._state, self._seen, self._num_points = None, None, None, 0

    def set_state(self, state: str | None, end_ms: int = 0) -> None:
        """Mark the sweep as running (None) or ended."""
        run_id = self.ensure()
        if run_id is None or (state == self._state and self._seen is not None):
            return
        if state is None:
            self._store.set_running(run_id)
        else:
            self._store.set_ended(run_id, state, end_ms)
        self._state = state

    def update(self, children: Mapping[str, Child], *, is_over: bool) -> None:
        """Bring the run up to date: description, numbers, table, page and winner.

        ``children``: by the run's directory, relative to the sweep's. Does nothing where nothing is new, and while
        the sweep runs only now and then.
        """
        now = time.monotonic()
        if not is_over and now < self._updated + UPDATE_SECONDS:
            return
        seen = (
            _stat(self._directory / TRIALS),
            tuple(sorted((k, c.state) for k, c in children.items())),
            is_over,
        )
        run_id = self.ensure()
        if seen == self._seen or run_id is None:
            return
        with exclusive(self._directory) as is_mine:
            if not is_mine:
                return
            record = read_sweep(self._directory)
            self._send_numbers(run_id, record, is_over)
            self._send_description(run_id, record, children)
            if is_over or now > self._drawn + PAGE_SECONDS:
                self._send_page(run_id, record, is_over)
            if is_over:
                self._send_files(run_id, FILES)
        self._seen, self._updated = seen, now

    def _send_numbers(self, run_id: str, record: SweepRecord, is_over: bool) -> None:
        ended = ended_trials(record)
        # Once: MLflow keeps a parameter's first value. What a plain grid searched is known only when it is over.
        is_known = is_over or (self._num_points == 0 and (self._directory / SWEEP).exists())
        points = best_points(record, ended)[self._num_points :]
        if is_known:
            self._store.log(
                run_id, points, search_params(self._directory, record), origin_tags(self._directory)
            )
        else:
            self._store.log(run_id, points)
        self._num_points = len(ended)

    def _send_description(
        self, run_id: str, record: SweepRecord, children: Mapping[str, Child]
    ) -> None:
        experiment_id = self._store.experiment_id(self._experiment)
        runs = {
            t.number: children[t.directory].run_id for t in record.trials if t.directory in children
        }
        links = {number: run_page(experiment_id, child) for number, child in runs.items()}
        tags = {"mlflow.note.content": description_markdown(record, links)}
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": TABLE, "type": "table"}])
        ranked = record.ranked()
        if ranked:
            tags |= {f"best.{key}": str(value) for key, value in ranked[0].params.items()}
            tags["best.trial"] = str(ranked[0].number)
        self._store.log(run_id, tags=tags)
        self._store.log_text(
            run_id, json.dumps(leaderboard_table(record, links), ensure_ascii=False), TABLE
        )
        winner = runs.get(ranked[0].number) if ranked else None
        if winner is not None:
            self._store.set_winner(self._experiment, run_id, winner)

    def _send_page(self, run_id: str, record: SweepRecord, is_over: bool) -> None:
        started = time.monotonic()
        try:
            write_sweep_page(record, self._directory / PAGE)
        except Exception as error:  # a picture that cannot be drawn holds up no number
            log.exception("%s: cannot be drawn", self._directory / PAGE)
            self._store.log(
                run_id, tags={"visionsweep.page_error": f"{type(error).__name__}: {error}"}
            )
            return
        log.info("%s: drawn in %.1f s", self._directory / PAGE, time.monotonic() - started)
        self._drawn = time.monotonic()
        self._send_files(run_id, (PAGE,))

    def _send_files(self, run_id: str, names: tuple[str, ...]) -> None:
        ack = load_ack(self._directory, self._store.uri)
        for name in names:
            path = self._directory / name
            if not path.is_file():
                continue
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            if ack.sent.get(name) != sha256:
                self._store.log_file(run_id, path, str(Path(name).parent) if "/" in name else "")
                ack.sent[name] = sha256
                save_ack(self._directory, self._store.uri, ack)

    def _uid(self) -> str:
        path = self._directory / SWEEP_UID_NAME
        if not path.exists():
            write_text(path, uuid.uuid4().hex)
        return path.read_text()


def ended_trials(record: SweepRecord) -> list[SweptTrial]:
    """Return the trials that have ended, in the order in which they did."""
    ended = [trial for trial in record.trials if trial.state != "running" and trial.end is not None]
    return sorted(ended, key=lambda trial: (trial.end, trial.number))


def best_points(record: SweepRecord, ended: list[SweptTrial]) -> list[Record]:
    """Return one metrics record an ended trial: the best objective until then, and how many ended how.

    The step is the number of ended trials. The time is the trial's, so that sending it again changes nothing.
    """
    points: list[Record] = []
    counts = {"complete": 0, "pruned": 0, "failed": 0}
    best: float | None = None
    for step, trial in enumerate(ended, 1):
        counts[trial.state] += 1
        value = trial.value if trial.state == "complete" else None
        if value is not None:
            best = value if best is None or record.cost(value) < record.cost(best) else best
        values: dict[str, float] = {f"trials/{state}": count for state, count in counts.items()}
        if best is not None:
            values[f"best/{record.metrics[0].removeprefix('val/')}"] = best
        assert trial.end is not None
        points.append({"time": round(1000 * trial.end), "step": step, "values": values})
    return points


def search_params(directory: Path, record: SweepRecord) -> dict[str, object]:
    """Return the search space and the search's settings as parameters: they stay as they are for the whole sweep."""
    params: dict[str, object] = {f"space.{key}": text for key, text in space_rows(record.space)}
    if record.metrics:
        params["objective"] = ", ".join(
            map(" ".join, zip(record.directions, record.metrics, strict=True))
        )
    search = yaml_mapping(directory / SWEEP).get("search")
    if not isinstance(search, dict):
        return params
    for name in ("sampler", "pruner"):
        target = (search.get(name) or {}).get("_target_")
        params[name] = "none" if target is None else str(target).rpartition(".")[2]
    return params | {"seeds": search.get("seeds", 1)}


def origin_tags(directory: Path) -> dict[str, str]:
    """Return what the sweep was started with, and from which commit; none of a plain grid, whose runs say it."""
    stored = yaml_mapping(directory / SWEEP)
    if not stored:
        return {}
    overrides = [
        str(one) for part in ("task_overrides", "hydra_overrides") for one in stored.get(part) or ()
    ]
    commit = stored.get("git_commit")
    return {
        "overrides": mask_passwords(shlex.join(overrides)) or "(none)",
        "git.commit": commit or "not in git",
        "mlflow.source.git.commit": commit or "",
    }


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
