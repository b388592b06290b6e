"""Sends what a directory holds, one run or a sweep's runs, to a tracking store."""

import time
import uuid
from pathlib import Path

from visionsweep.atomic import write_text
from visionsweep.errors import DataError
from visionsweep.tracking.ack import (
    exclusive,
    holds_sweep,
    known_uris,
    run_directories,
    sweep_directory,
    without_password,
)
from visionsweep.tracking.journal import JOURNAL_NAME, read_records
from visionsweep.tracking.replay import RunReplay
from visionsweep.tracking.store import Store

SWEEP_UID_NAME = ".sweep_uid"
FILE_SECONDS = 2.0  # a pass gives files no more, so that a large one does not hold up the others' metrics


class SweepParent:
    """The MLflow run under which the runs of a sweep stand."""

    def __init__(self, directory: Path, store: Store, experiment: str) -> None:
        self._directory = directory
        self._store = store
        self._experiment = experiment
        self._run_id: str | None = None
        self._state: str | None = None

    def ensure(self) -> str | None:
        """Return the parent's run id; None while another process is creating it."""
        if self._run_id is None:
            with exclusive(self._directory) as is_mine:
                if is_mine:
                    name = self._directory.resolve().name
                    tags = {"visionsweep.sweep": name, "visionsweep.kind": "sweep"}
                    self._run_id = self._store.ensure_run(self._experiment, self._uid(), name, None, tags)
        return self._run_id

    def set_state(self, state: str | None, end_ms: int = 0) -> None:
        """Mark the sweep as running (None) or ended."""
        run_id = self.ensure()
        if run_id is None or state == self._state:
            return
        if state is None:
            self._store.set_running(run_id)
        else:
            self._store.set_ended(run_id, state, end_ms)
        self._state = state

    def _uid(self) -> str:
        path = self._directory / SWEEP_UID_NAME
        if not path.exists():
            write_text(path, uuid.uuid4().hex)
        return path.read_text()


class DirectoryReplay:
    """All runs below a run's or a sweep's directory; new ones are found as they appear."""

    def __init__(self, directory: Path, store: Store, experiment: str | None = None) -> None:
        self.runs: dict[Path, RunReplay] = {}
        self._directory = directory
        self._store = store
        self._experiment = experiment
        self._parent: SweepParent | None = None

    @property
    def behind(self) -> int:
        """Records and files that the store does not have yet."""
        self._find_runs()
        return sum(run.behind for run in self.runs.values() if run.has_news)

    def advance(self, every_run: bool = False) -> None:
        """Send what is new: records, then files as far as the time goes, then final states.

        `every_run`: look also after runs without news, which the store may have lost. The first error ends
        the pass; the run that caused it comes last in the next one.
        """
        self._find_runs()
        runs = sorted(self.runs.values(), key=lambda run: run.failures)
        runs = [run for run in runs if every_run or run.has_news]
        if runs and self._parent is not None and self._is_sweep:
            self._parent.set_state(None)
        deadline = time.monotonic() + FILE_SECONDS
        for is_failing in (False, True):
            group = [run for run in runs if (run.failures > 0) == is_failing]
            for run in group:
                self._attempt(run, deadline=None)
            for run in group:
                self._attempt(run, deadline)

    def close(self, ignore_pid: int | None = None) -> bool:
        """Mark runs whose process died; return whether all runs of this host are over and sent.

        `ignore_pid`: a process that writes no more although it lives.
        """
        for run in self.runs.values():
            run.mark_killed()
        if self.behind > 0:
            return False
        for run in self.runs.values():
            is_open = run.ack.state is None and not run.ack.is_deleted
            if is_open and run.ack.writer.get("pid") != ignore_pid and run.is_writer_alive:
                return False
        self._end_sweep()
        return True

    @property
    def _is_sweep(self) -> bool:
        return holds_sweep(self._directory)

    def _attempt(self, run: RunReplay, deadline: float | None) -> None:
        try:
            if deadline is None:
                run.send_records()
                return
            while time.monotonic() < deadline and run.send_next_file():
                pass
            run.send_end()
        except Exception:
            run.note_failure()
            self._store.forget()
            raise

    def _find_runs(self) -> None:
        for run_dir in run_directories(self._directory):
            if run_dir in self.runs:
                continue
            if without_password(self._store.uri) not in known_uris(run_dir):
                RunReplay(run_dir, self._store).register()
            parent = self._parent_of(run_dir)
            if parent is not None and parent.ensure() is None:
                return
            parent_run_id = None if parent is None else parent.ensure()
            self.runs[run_dir] = RunReplay(run_dir, self._store, self._experiment, parent_run_id)

    def _parent_of(self, run_dir: Path) -> SweepParent | None:
        directory = self._directory if self._is_sweep else sweep_directory(run_dir.resolve())
        is_child = self._is_sweep or (directory / SWEEP_UID_NAME).exists()
        if self._parent is None and is_child:
            experiment = self._experiment
            if experiment is None:
                records, _ = read_records(run_dir, 0)
                if not records or records[0]["type"] != "start":
                    raise DataError(f"{run_dir / JOURNAL_NAME} does not begin with a start record; give --experiment")
                experiment = str(records[0]["experiment"])
            self._parent = SweepParent(directory, self._store, experiment)
        return self._parent

    def _end_sweep(self) -> None:
        acks = [run.ack for run in self.runs.values() if run.ack.run_id is not None and not run.ack.is_deleted]
        if self._parent is None or not self._is_sweep or not acks or any(ack.state is None for ack in acks):
            return
        is_cut_short = any(ack.state in ("stopped", "killed") for ack in acks)
        self._parent.set_state("stopped" if is_cut_short else "finished", max(ack.last_time for ack in acks))
