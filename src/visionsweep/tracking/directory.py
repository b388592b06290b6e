"""Sends what a directory holds, one run or a sweep's runs, to a tracking store."""

import time
from pathlib import Path

from visionsweep.errors import DataError
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.journal import JOURNAL_NAME, read_records
from visionsweep.rundir.layout import TRIALS
from visionsweep.tracking.ack import (
    Ack,
    holds_sweep,
    known_uris,
    num_behind,
    run_directories,
    sweep_directory,
    without_password,
)
from visionsweep.tracking.parent import SWEEP_UID_NAME, Child, SweepParent
from visionsweep.tracking.replay import RunReplay
from visionsweep.tracking.store import Store

FILE_SECONDS = (
    2.0  # a pass gives files no more, so that a large one does not hold up the others' metrics
)


class DirectoryReplay:
    """All runs below a run's or a sweep's directory; new ones are found as they appear."""

    def __init__(self, directory: Path, store: Store, experiment: str | None = None) -> None:
        self.runs: dict[Path, RunReplay] = {}
        self._directory = directory
        self._store = store
        self._experiment = experiment
        self._parent: SweepParent | None = None
        self._holds_checkpoints = False
        self._held_sweep = False

    @property
    def behind(self) -> int:
        """Records and files that the store does not have yet."""
        self._find_runs()
        return sum(run.behind for run in self.runs.values() if run.has_news)

    @property
    def behind_offline(self) -> int:
        """The same, found without the store; with the checkpoints that are held back."""
        return sum(
            num_behind(run_dir, self._store.uri) for run_dir in run_directories(self._directory)
        )

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
        self._update_parent(is_over=False)

    def hold_checkpoints(self, hold: bool) -> None:
        """Let the checkpoints of a sweep's runs wait: it removes most of them before it ends."""
        self._holds_checkpoints = hold
        for run in self.runs.values():
            run.holds_checkpoints = hold and self._is_sweep

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
        self._held_sweep = self._held_sweep or holds_sweep(self._directory)  # from its first run on
        return self._held_sweep

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
            parent_run_id = None if parent is None else parent.ensure(_start_ms(run_dir))
            if parent is not None and parent_run_id is None:
                return
            run = RunReplay(run_dir, self._store, self._experiment, parent_run_id)
            run.holds_checkpoints = self._holds_checkpoints and self._is_sweep
            self.runs[run_dir] = run

    def _parent_of(self, run_dir: Path) -> SweepParent | None:
        directory = self._directory if self._is_sweep else sweep_directory(run_dir.resolve())
        is_child = self._is_sweep or (directory / SWEEP_UID_NAME).exists()
        if self._parent is None and is_child:
            experiment = self._experiment
            if experiment is None:
                records, _ = read_records(run_dir, 0)
                if not records or records[0]["type"] != "start":
                    raise DataError(
                        f"{run_dir / JOURNAL_NAME} does not begin with a start record; give --experiment"
                    )
                experiment = str(records[0]["experiment"])
            self._parent = SweepParent(directory, self._store, experiment)
        return self._parent

    def _update_parent(self, *, is_over: bool) -> None:
        if self._parent is None or not self._is_sweep:
            return
        children = {
            run_dir.relative_to(self._directory).as_posix(): Child(run.ack.run_id, run.ack.state)
            for run_dir, run in self.runs.items()
            if run.ack.run_id is not None and not run.ack.is_deleted
        }
        try:
            self._parent.update(children, is_over=is_over)
        except Exception:
            self._parent.forget()
            self._store.forget()
            raise

    def _end_sweep(self) -> None:
        acks = [
            run.ack
            for run in self.runs.values()
            if run.ack.run_id is not None and not run.ack.is_deleted
        ]
        if (
            self._parent is None
            or not self._is_sweep
            or not acks
            or any(ack.state is None for ack in acks)
        ):
            return
        self._update_parent(is_over=True)
        self._parent.set_state(
            sweep_state(self._directory, acks), max(ack.last_time for ack in acks)
        )


def sweep_state(directory: Path, acks: list[Ack]) -> str:
    """Return how a sweep ended whose runs, at least one, have all ended: finished, failed, stopped or killed."""
    states = {ack.state for ack in acks}
    if (
        directory / TRIALS
    ).exists():  # there a run that a crash cut short has become a trial that failed
        trials = {trial.state for trial in read_sweep(directory).trials}
        if "running" not in trials:
            return "finished" if "complete" in trials else "failed"
    for state in ("killed", "stopped"):
        if state in states:
            return state
    return "finished" if "finished" in states else "failed"


def _start_ms(run_dir: Path) -> int | None:
    records, _ = read_records(run_dir, 0, limit=1)
    return int(records[0]["time"]) if records else None
