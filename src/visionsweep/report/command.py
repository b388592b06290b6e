"""`visionsweep report`: draws the pictures of runs, and the pages of sweeps."""

import argparse
import sys
from pathlib import Path

from visionsweep.errors import DataError, UserError
from visionsweep.report.run.pictures import draw
from visionsweep.report.sweep.page import write_report
from visionsweep.rundir.layout import (
    BEST,
    FIGURES,
    JOURNAL,
    PREDICTIONS,
    SWEEP,
    holds_sweep,
    run_directories,
)
from visionsweep.streams import keep_streams
from visionsweep.text import counted


def main(argv: list[str]) -> int:
    """Draw what `argv` names, print where it is, and return the exit code."""
    keep_streams()
    parser = argparse.ArgumentParser(prog="visionsweep report", description=__doc__)
    parser.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="the directory of a run or a sweep"
    )
    try:
        for directory in parser.parse_args(argv).directories:
            report(directory)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def report(directory: Path) -> None:
    """Draw the pictures of a run, or the page of a sweep and the pictures of its best trials.

    Raises `DataError` if the directory holds neither, or the run has no predictions.
    """
    if (directory / SWEEP).exists() or holds_sweep(directory):
        _say(write_report(directory))
        # a sweep keeps the weights of its best trials only
        finished = [run for run in run_directories(directory) if (run / PREDICTIONS).exists()]
        best = [run for run in finished if (run / BEST).exists()]
        for run_dir in best:
            _draw(run_dir)
        if len(best) < len(finished):
            sys.stdout.write(
                f"drawn: {len(best)} of {counted(len(finished), 'finished run')}, those that keep "
                f"their weights; another: visionsweep report {directory}/NUMBER\n"
            )
    elif (directory / JOURNAL).exists():
        _draw(directory)
    else:
        problem = "holds neither a run nor a sweep" if directory.is_dir() else "does not exist"
        raise DataError(
            f"{directory} {problem}; expected the directory of a run (outputs/NAME) "
            "or of a sweep (multirun/STUDY)"
        )


def _draw(run_dir: Path) -> None:
    draw(run_dir)
    _say(run_dir / FIGURES)


def _say(path: Path) -> None:
    sys.stdout.write(f"{path}\n")
