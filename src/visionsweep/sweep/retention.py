"""The weights that a sweep keeps on disk: those of its best trials and of trials that are running.

Everything else in a trial's directory stays. Nothing outside the sweep's directory is touched.
"""

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from visionsweep.rundir.layout import CHECKPOINTS
from visionsweep.sweep.ranking import pareto, ranked
from visionsweep.sweep.trial_record import TrialRecord

log = logging.getLogger(__name__)


def remove_checkpoints(
    sweep_dir: Path,
    trials: Sequence[TrialRecord],
    directions: Sequence[str],
    keep: int | None,
    folder: str = CHECKPOINTS,
    *,
    also: Collection[int] = (),
    cleaned: set[str] | None = None,
) -> list[int]:
    """Remove the weights of trials that ended and are not among the `keep` best; return which.

    Weights are all files in folders named `folder` at any depth of a trial's directory. With
    several objectives the whole Pareto set is kept, and more if it is smaller than `keep`. A trial
    that repeats another one counts as that one. None keeps all. Unless `keep` is 0, the trials with
    the numbers `also` keep theirs, too. Called again, it removes the rest.

    ``cleaned`` collects the directories that are done, which are then skipped.
    """
    if keep is None:
        return []
    cleaned = set() if cleaned is None else cleaned
    # A trial that was not among the best never will be: thousands need no ranking again.
    trials = [trial for trial in trials if os.path.normpath(trial.directory) not in cleaned]
    kept = _kept(trials, directions, keep)
    if keep > 0:
        kept |= {os.path.normpath(trial.directory) for trial in trials if trial.number in also}
    removed = []
    for trial in trials:
        directory = os.path.normpath(trial.directory)
        if directory in kept or directory in cleaned:
            continue
        cleaned.add(directory)
        root = _inside(sweep_dir, directory)
        counts = [] if root is None else [_empty(path) for path in _folders(root, folder)]
        if any(counts):
            removed.append(trial.number)
    return sorted(removed)


def disk_space(sweep_dir: Path, folder: str = CHECKPOINTS) -> int | None:
    """Return the bytes of the largest folder of weights in a sweep's directory, or None."""
    sizes = [
        sum(os.lstat(file).st_size for file in _files(path)) for path in _folders(sweep_dir, folder)
    ]
    return max((size for size in sizes if size), default=None)


def _kept(trials: Sequence[TrialRecord], directions: Sequence[str], keep: int) -> set[str]:
    """Return the directories whose weights must stay."""
    originals = {trial.number: trial for trial in trials}

    def directory_of(trial: TrialRecord) -> str:
        while trial.duplicate_of is not None and trial.duplicate_of in originals:
            trial = originals[trial.duplicate_of]
        return os.path.normpath(trial.directory)

    order = ranked(trials, directions) if keep > 0 else []
    best = dict.fromkeys(map(directory_of, order))  # best first, each once
    kept = set(list(best)[:keep])
    if keep > 0 and len(directions) > 1:
        kept |= set(map(directory_of, pareto(trials, directions)))
    running = [trial for trial in trials if trial.state == "running"]
    own = {os.path.normpath(trial.directory) for trial in running}
    return kept | own | set(map(directory_of, running))


def _inside(sweep_dir: Path, directory: str) -> Path | None:
    """Return a trial's directory; None if it is missing, a link, or outside the sweep's."""
    path = sweep_dir / directory
    if os.path.isabs(directory) or directory.split(os.sep)[0] in ("..", "."):
        return None
    expected = Path(os.path.realpath(sweep_dir)) / directory
    return path if Path(os.path.realpath(path)) == expected and path.is_dir() else None


def _folders(root: Path, folder: str) -> Iterator[Path]:
    """Yield the folders of that name below `root`; links are not followed."""
    for parent, names, _ in os.walk(root):
        if folder in names:
            names.remove(folder)
            path = Path(parent, folder)
            if not path.is_symlink():
                yield path


def _files(path: Path) -> list[Path]:
    return [Path(parent, name) for parent, _, names in os.walk(path) for name in names]


def _empty(path: Path) -> int:
    """Remove the files in a folder; return how many there were."""
    count = 0
    for file in _files(path):
        try:
            file.unlink()
            count += 1
        except FileNotFoundError:
            pass
        except OSError as error:  # no reason to end a sweep
            log.warning("cannot remove %s (%s)", file, error.strerror)
    return count
