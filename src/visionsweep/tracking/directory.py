"""Sends what a directory holds, one run or a sweep's runs, to a tracking store."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from visionsweep.errors import DataError
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.journal import Record, read_records
from visionsweep.rundir.layout import (
    JOURNAL,
    SWEEP_UID,
    TRIALS,
    holds_sweep,
    run_directories,
    sweep_directory,
)
from visionsweep.tracking.ack import ensure_ack
from visionsweep.tracking.parent import Child, SweepParent
from visionsweep.tracking.replay import RunReplay
from visionsweep.tracking.store import Store

# Per pass, so that a large file does not hold up the metrics of the other runs.
FILE_SECONDS = 2.0


class DirectoryReplay:
    """All runs below a run's or a sweep's directory; new ones are found as they appear."""

    def __init__(self, directory: Path, store: Store, experiment: str | None = None) -> None:
        self.directory = directory
        self.runs: dict[Path, RunReplay] = {}
        self.store = store
        self._experiment = experiment
        self._parent: SweepParent | None = None
        self._holds_checkpoints = False
        self._was_sweep = False

    @property
    def behind(self) -> int:
        """Return how many records and files the store does not have yet, pictures aside."""
        self._find_runs()
        return sum(run.behind for run in self.runs.values() if run.has_unsent)

    @property
    def num_done(self) -> int:
        """Return how many parts of runs were sent; it grows as long as the store answers."""
        return sum(run.num_done for run in self.runs.values())

    @property
    def deleted(self) -> str | None:
        """Return how to mend that a run or its experiment was deleted in MLflow; None if none."""
        found = (run.ack.deleted for run in self.runs.values())
        return next((message for message in found if message is not None), None)

    def advance(self, every_run: bool = False) -> None:
        """Send what is new: records, then files for as long as a pass may take, then final states.

        `every_run` also checks runs without news, which the store may have lost. The first error
        ends the pass; the run that caused it comes last in the next one.
        """
        self._find_runs()
        runs = [run for run in self.runs.values() if every_run or run.has_unsent]
        if runs and self._parent is not None and self._is_sweep:
            self._parent.set_state(None)
        deadline = time.monotonic() + FILE_SECONDS
        runs.sort(key=lambda run: run.failures)
        for is_failing in (False, True):
            group = [run for run in runs if (run.failures > 0) == is_failing]
            for run in group:
                with self._counting_failures(run):
                    run.send_records()
            for run in group:
                with self._counting_failures(run):
                    while time.monotonic() < deadline and run.send_next_file():
                        pass
                    run.send_end()
        self._update_parent(is_over=False)

    def hold_checkpoints(self, hold: bool) -> None:
        """Hold back the checkpoints of a sweep's runs: most are deleted before it ends."""
        self._holds_checkpoints = hold
        for run in self.runs.values():
            run.holds_checkpoints = hold and self._is_sweep

    def close(self, ignore_pid: int | None = None) -> bool:
        """Finish what waits for the end, pictures last; return whether all runs are over and sent.

        Runs whose process died are marked as killed. `ignore_pid` is a process that is alive but
        writes no more.
        """
        for run in self.runs.values():
            run.mark_killed()
        if self.behind > 0:
            return False
        is_over = not any(
            run.is_open and run.ack.writer.get("pid") != ignore_pid and run.is_writer_alive
            for run in self.runs.values()
        )
        if is_over:
            self._end_sweep()
        for run in sorted(self.runs.values(), key=lambda run: run.failures):
            with self._counting_failures(run):
                run.send_pictures()
        return is_over and self.behind == 0

    @property
    def _is_sweep(self) -> bool:
        self._was_sweep = self._was_sweep or holds_sweep(self.directory)  # from its first run on
        return self._was_sweep

    @contextlib.contextmanager
    def _counting_failures(self, run: RunReplay) -> Iterator[None]:
        try:
            yield
        except Exception:
            run.record_failure()
            self.store.forget()
            raise

    def _find_runs(self) -> None:
        for run_dir in run_directories(self.directory):
            if run_dir in self.runs:
                continue
            ensure_ack(run_dir, self.store.uri)
            parent = self._parent_of(run_dir)
            first = _first_record(run_dir)
            parent_run_id = None if parent is None else parent.ensure(first.get("time"))
            if parent is not None and parent_run_id is None:
                return
            run = RunReplay(run_dir, self.store, self._experiment, parent_run_id)
            run.holds_checkpoints = self._holds_checkpoints and self._is_sweep
            self.runs[run_dir] = run

    def _parent_of(self, run_dir: Path) -> SweepParent | None:
        directory = self.directory if self._is_sweep else sweep_directory(run_dir.resolve())
        is_child = self._is_sweep or (directory / SWEEP_UID).exists()
        if self._parent is None and is_child:
            experiment = self._experiment
            if experiment is None:
                start = _first_record(run_dir)
                if start.get("type") != "start":
                    path = run_dir / JOURNAL
                    raise DataError(
                        f"{path} does not begin with a start record; name one with --experiment"
                    )
                experiment = str(start["experiment"])
            self._parent = SweepParent(directory, self.store, experiment)
        return self._parent

    @property
    def _sent_runs(self) -> dict[Path, RunReplay]:
        return {
            run_dir: run
            for run_dir, run in self.runs.items()
            if run.ack.run_id is not None and run.ack.deleted is None
        }

    def _update_parent(self, *, is_over: bool) -> None:
        if self._parent is None or not self._is_sweep:
            return
        children = {
            run_dir.relative_to(self.directory).as_posix(): Child(run.ack.run_id, run.ack.state)
            for run_dir, run in self._sent_runs.items()
            if run.ack.run_id is not None
        }
        try:
            self._parent.update(children, is_over=is_over)
        except Exception:
            self._parent.forget()
            self.store.forget()
            raise

    def _end_sweep(self) -> None:
        acks = [run.ack for run in self._sent_runs.values()]
        states = {ack.state for ack in acks if ack.state is not None}
        if self._parent is None or not acks or any(ack.state is None for ack in acks):
            return
        if self._is_sweep:
            self._update_parent(is_over=True)
            end_ms = max(ack.last_time for ack in acks)
            self._parent.set_state(sweep_state(self.directory, states), end_ms)


def sweep_state(directory: Path, run_states: set[str]) -> str:
    """Return how a sweep ended whose runs have ended: finished, failed, stopped or killed."""
    if (directory / TRIALS).exists():  # there, a run cut short by a crash counts as failed
        states = {trial.state for trial in read_sweep(directory).trials}
        if "running" not in states:
            return "finished" if "complete" in states else "failed"
    for state in ("killed", "stopped", "finished"):
        if state in run_states:
            return state
    return "failed"


def _first_record(run_dir: Path) -> Record:
    records, _ = read_records(run_dir, 0, limit=1)
    return records[0] if records else {}
