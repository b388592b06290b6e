"""The MLflow run of a sweep, above those of its trials: who won, why, and how it went.

All of it follows from the sweep's directory, so a lost database can be filled again, and sending
it again changes nothing.
"""

import json
import logging
import shlex
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from visionsweep.report.sweep.files import yaml_mapping
from visionsweep.report.sweep.leaderboard import description_markdown, leaderboard_table
from visionsweep.report.sweep.page import write_report
from visionsweep.report.sweep.record import SweepRecord, SweptTrial, read_sweep
from visionsweep.report.sweep.winner import space_rows
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.confirmation import read_confirmation
from visionsweep.rundir.journal import Record
from visionsweep.rundir.layout import (
    OPTIMIZATION_RESULTS,
    PRESET,
    REPORT,
    SWEEP,
    SWEEP_UID,
    TRIALS,
    UPLOADED_LOCK,
    file_inside,
)
from visionsweep.rundir.lock import try_lock_file
from visionsweep.text import first_line, mask_passwords
from visionsweep.tracking.ack import artifact_record, load_ack, save_ack
from visionsweep.tracking.store import Store, run_page
from visionsweep.tracking.views import ALL_RUNS, SWEEP_NAME_TAG, SWEEP_RUN_TAG, view_of_sweep

TABLE = "leaderboard.json"
FILES = (SWEEP, TRIALS, OPTIMIZATION_RESULTS, PRESET)  # sent once the sweep is over
UPDATE_SECONDS = 5.0  # while the sweep runs
PAGE_SECONDS = 60.0  # drawing the page takes a core 1 to 2 s, and it has 2 MB

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Child:
    """The MLflow run of a trial, or of its first seed or fold."""

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
        self._seen: object = None  # the state of the sweep that the run shows
        self._num_points = 0  # ended trials whose numbers this process has sent
        self._updated = self._drawn = float("-inf")  # time.monotonic()

    def ensure(self, start_ms: int | None = None) -> str | None:
        """Return the run's id; creates the run, which began when the sweep's first run did.

        None while another process is creating it.
        """
        if self._run_id is None:
            with self._locked() as is_mine:
                if is_mine:
                    self._run_id = self._find_or_create(start_ms)
        return self._run_id

    def forget(self) -> None:
        """Before the next update, check whether the run still exists; then send everything."""
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

        ``children``: by the run's directory, relative to the sweep's. Does nothing if nothing is
        new or, while the sweep runs, if the last update was a moment ago.
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
        with self._locked() as is_mine:
            if not is_mine:
                return
            record = read_sweep(self._directory)
            self._send_numbers(run_id, record, is_over)
            page = self._send_view(run_id, record)
            self._send_description(run_id, record, children, page)
            if is_over or now > self._drawn + PAGE_SECONDS:
                self._send_page(run_id, record)
            if is_over:
                self._send_files(run_id, FILES)
        self._seen, self._updated = seen, now

    def _send_numbers(self, run_id: str, record: SweepRecord, is_over: bool) -> None:
        ended = ended_trials(record)
        # Once, since MLflow keeps a parameter's first value. A grid's space is known at its end.
        is_known = is_over or (self._num_points == 0 and (self._directory / SWEEP).exists())
        points = best_points(record, ended)[self._num_points :]
        if is_known:
            self._store.log(
                run_id, points, search_params(self._directory, record), origin_tags(self._directory)
            )
        else:
            self._store.log(run_id, points)
        self._num_points = len(ended)

    def _send_view(self, run_id: str, record: SweepRecord) -> str:
        """Store the view of the sweep's runs; return its address."""
        view = view_of_sweep(
            self._directory.resolve().name,
            run_id,
            record.metrics[0] if record.metrics else "val/f1_macro",
            ascending=record.directions[:1] == ("minimize",),
            params=record.space,
        )
        page = self._store.store_view(self._experiment, view)
        ack = load_ack(self._directory, self._store.uri)
        if ack.page != page:
            ack.page = page
            save_ack(self._directory, self._store.uri, ack)
        return page

    def _send_description(
        self, run_id: str, record: SweepRecord, children: Mapping[str, Child], page: str
    ) -> None:
        experiment_id = self._store.experiment_id(self._experiment)
        runs = {
            t.number: children[t.directory].run_id for t in record.trials if t.directory in children
        }
        links = {number: run_page(experiment_id, child) for number, child in runs.items()}
        confirmation = read_confirmation(self._directory)
        answer = "" if confirmation is None else "".join(f"{x}\n\n" for x in confirmation.lines)
        tags = {"mlflow.note.content": answer + description_markdown(record, links, page)}
        if confirmation is not None:
            tags["confirmed"] = confirmation.confirmed or "nothing"
            tags["confirmation"] = confirmation.lines[0]
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

    def _send_page(self, run_id: str, record: SweepRecord) -> None:
        started = time.monotonic()
        try:
            write_report(self._directory, record)
        except Exception as error:  # an error while drawing costs only the page
            log.exception("%s: cannot be drawn", self._directory / REPORT)
            reason = f"{type(error).__name__}: {first_line(error)}"
            self._store.log(run_id, tags={"visionsweep.page_error": reason})
            return
        self._drawn = time.monotonic()
        log.info("%s: drawn in %.1f s", self._directory / REPORT, self._drawn - started)
        self._send_files(run_id, (REPORT,))

    def _send_files(self, run_id: str, names: tuple[str, ...]) -> None:
        ack = load_ack(self._directory, self._store.uri)
        for name in names:
            path = file_inside(self._directory, name)
            if path is None:
                continue
            sha256 = artifact_record(self._directory, name)["sha256"]
            if ack.sent.get(name) != sha256:
                self._store.log_file(run_id, path, str(Path(name).parent) if "/" in name else "")
                ack.sent[name] = sha256
                save_ack(self._directory, self._store.uri, ack)

    def _find_or_create(self, start_ms: int | None) -> str:
        name = self._directory.resolve().name
        tags = {
            SWEEP_NAME_TAG: name,
            "visionsweep.kind": "sweep",
            "run_dir": str(self._directory),
        }
        ack = load_ack(self._directory, self._store.uri)
        run_id = self._store.ensure_run(
            self._experiment, self._uid(), name, start_ms, tags, known=ack.run_id
        )
        self._store.log(run_id, tags={SWEEP_RUN_TAG: run_id})
        self._store.store_view(self._experiment, ALL_RUNS)
        if ack.run_id != run_id:  # a new database has nothing of what was sent
            ack.run_id, ack.page, ack.sent = run_id, None, {}
            save_ack(self._directory, self._store.uri, ack)
        return run_id

    def _locked(self) -> AbstractContextManager[bool]:
        return try_lock_file(self._directory / UPLOADED_LOCK)

    def _uid(self) -> str:
        path = self._directory / SWEEP_UID
        if not path.exists():
            write_text(path, uuid.uuid4().hex)
        return path.read_text()


def ended_trials(record: SweepRecord) -> list[SweptTrial]:
    """Return the trials that have ended, in the order in which they did."""
    ended = [trial for trial in record.trials if trial.state != "running" and trial.end is not None]
    return sorted(ended, key=lambda trial: (trial.end, trial.number))


def best_points(record: SweepRecord, ended: list[SweptTrial]) -> list[Record]:
    """Return one metrics record per ended trial: the best objective so far, and counts by state.

    The step is the number of ended trials. The time is the trial's, so sending a record again
    changes nothing.
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
    """Return the search space and the settings of the search as parameters."""
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
    return params | {"seeds": search.get("seeds", 1), "folds": search.get("folds", 1)}


def origin_tags(directory: Path) -> dict[str, str]:
    """Return the overrides and the commit of a sweep; the runs of a plain grid have them."""
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
