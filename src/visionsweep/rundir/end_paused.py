"""Ends a run that a sweep paused and will not train on. Imports no torch."""

from pathlib import Path

from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import LAST, RESULT
from visionsweep.rundir.lock import locked
from visionsweep.rundir.result import read_result, write_result


def end_paused_run(run_dir: Path) -> None:
    """Make a stopped run a pruned one, as if its process had been told so at its last epoch.

    Does nothing for a run that has ended, and for the directory of another app.
    """
    result = read_result(run_dir)
    if result is None or result["state"] != "stopped":
        return
    with locked(run_dir):
        write_result(run_dir, {**result, "state": "pruned"})
        journal = Journal(run_dir)
        try:
            journal.artifact(RESULT)
            journal.end("pruned")
        finally:
            journal.close()
        (run_dir / LAST).unlink(missing_ok=True)
