"""`sync`: sends to MLflow what it does not have yet of finished, interrupted or running runs."""

import argparse
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from visionsweep.errors import ConfigError, DataError, UserError
from visionsweep.masking import mask_logs
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import BEST, JOURNAL, holds_sweep, run_directories
from visionsweep.streams import keep_streams
from visionsweep.text import first_line, is_masked, mask_passwords
from visionsweep.tracking.ack import (
    are_pictures_due,
    count_lines,
    known_uris,
    load_ack,
    num_behind,
    page_of,
)
from visionsweep.tracking.process import page_lines, resolve_uri
from visionsweep.tracking.uploader import prepare_environment

if TYPE_CHECKING:
    from visionsweep.tracking.directory import DirectoryReplay

PAUSES = (1.0, 2.0, 4.0)  # seconds between attempts while the store does not answer


def main(argv: list[str] | None = None) -> int:
    """Send, print one line per run, and return 0 if everything is there, else 1."""
    keep_streams()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="a run's directory, or a sweep's"
    )
    parser.add_argument("--uri", help="MLflow tracking URI; default: the run's own")
    parser.add_argument("--experiment", help="MLflow experiment; default: the one in the record")
    parser.add_argument(
        "--verify", action="store_true", help="compare every value with what MLflow gives back"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what is missing")
    args = parser.parse_args(argv)
    mask_logs()
    logging.basicConfig(format="%(message)s")
    logging.captureWarnings(True)
    prepare_environment()
    try:
        return max(
            sync(path, args.uri, args.experiment, args.verify, args.dry_run)
            for path in args.directories
        )
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def sync(
    directory: Path, uri: str | None, experiment: str | None, verify: bool, dry_run: bool
) -> int:
    """Send one directory. Raises `DataError` without a run, `ConfigError` if the URI is unclear."""
    run_dirs = run_directories(directory)
    if not run_dirs:
        raise DataError(_no_run(directory))
    uri = _choose_uri(run_dirs, uri)
    if dry_run:
        for run_dir in run_dirs:
            _print_run(run_dir, uri)
        return int(any(num_behind(run_dir, uri) for run_dir in run_dirs))

    from visionsweep.tracking.directory import DirectoryReplay
    from visionsweep.tracking.store import Store
    from visionsweep.tracking.verify import differences, sweep_differences

    store = Store(uri)
    replay = DirectoryReplay(directory, store, experiment)
    is_complete = _send(replay)
    verify &= is_complete  # a store that does not answer cannot be compared
    for run_dir in run_dirs:
        is_complete &= _print_run(run_dir, uri)
        ack = load_ack(run_dir, uri)
        if verify and ack.run_id is not None and ack.deleted is None:
            is_complete &= _compare(partial(differences, store, run_dir))
    if verify and holds_sweep(directory):
        sys.stdout.write(f"{directory}: the sweep's own run\n")
        if any(load_ack(run_dir, uri).state is None for run_dir in run_dirs):
            sys.stdout.write("  not compared: its numbers change as long as a trial runs\n")
        else:
            is_complete &= _compare(partial(sweep_differences, store, directory))
    if is_complete:
        sys.stdout.writelines(f"{line}\n" for line in page_lines(uri, page_of(directory, uri)))
    return 0 if is_complete else 1


def _no_run(directory: Path) -> str:
    hint = "give the directory of a run or a sweep"
    if not directory.is_dir():
        return f"{directory} does not exist; {hint}"
    below = (path for path in sorted(directory.iterdir()) if path.is_dir())
    example = next((path for path in below if run_directories(path)), None)
    hint = hint if example is None else f"give one of its directories, such as {example}"
    return f"{directory} holds no run (no {JOURNAL}); {hint}"


def _compare(differences: Callable[[], list[str]]) -> bool:
    """Print the differences; return whether there are none. A store that fails is asked again."""
    for pause in (*PAUSES, None):
        try:
            lines = differences()
            break
        except Exception as error:
            if pause is None:
                sys.stdout.write(f"  not compared: {first_line(error)}\n")
                return False
            time.sleep(pause)
    for line in lines:
        sys.stdout.write(f"  differs: {line}\n")
    if not lines:
        sys.stdout.write("  verified: every value and file is there, once\n")
    return not lines


def _send(replay: "DirectoryReplay") -> bool:
    """Send until nothing is left, or until the store has taken nothing four times in a row."""
    failures = num_done = 0
    is_checked = False
    while True:
        try:
            replay.advance(every_run=not is_checked)
            is_checked = True
            failures = 0
            if replay.behind == 0:
                replay.close()
                return True
        except Exception as error:
            if replay.num_done > num_done:
                failures, num_done = 0, replay.num_done
            if failures == len(PAUSES):
                uri = mask_passwords(replay.store.uri)
                sys.stderr.write(f"error: {uri} does not take the record: {first_line(error)}\n")
                return False
            time.sleep(PAUSES[failures])
            failures += 1


def _choose_uri(run_dirs: list[Path], uri: str | None) -> str:
    if uri is None:
        known = sorted({name for run_dir in run_dirs for name in known_uris(run_dir)})
        exported = resolve_uri(None, Path.cwd())
        if mask_passwords(exported) in known and is_masked(mask_passwords(exported)):
            return exported  # MLFLOW_TRACKING_URI has the password
        if len(known) > 1 or any(map(is_masked, known)):
            raise ConfigError(f"choose a store with --uri; the runs know {', '.join(known)}")
        uri = next(iter(known), None)
    return resolve_uri(uri, Path.cwd())


def _print_run(run_dir: Path, uri: str) -> bool:
    """Print the state of a run and how much was sent; return whether the store has all of it."""
    ack = load_ack(run_dir, uri)
    total, behind = count_lines(run_dir), num_behind(run_dir, uri)
    state = ack.state or next(
        (r["state"] for r in reversed(read_journal(run_dir)) if r["type"] == "end"), "running"
    )
    lacks_pictures = ack.deleted is None and are_pictures_due(run_dir, ack)
    num_sent = max(0, total - behind + lacks_pictures + len(ack.lost))
    line = f"{run_dir}: {state}, {num_sent}/{total} records sent"
    line += ", deleted in MLflow" if ack.deleted else ", pictures missing" * lacks_pictures
    sys.stdout.write(line + "\n")
    if ack.deleted is not None:
        sys.stdout.write(f"  {ack.deleted}\n")
    if ack.num_cuts:
        sys.stdout.write(f"  {JOURNAL} was shorter than what was sent; all of it was sent again\n")
    for path in ack.removed:
        why = " (a sweep keeps the weights of its best trials)" if path == BEST else ""
        sys.stdout.write(f"  deleted before it was sent{why}: {path}\n")
    for reason in ack.lost:
        sys.stdout.write(f"  not sent: {reason}\n")
    return behind == 0 and ack.deleted is None
