"""Every name and place in the directories of runs and sweeps. No other module spells them out.

    outputs/NAME/              a run, or an ensemble of runs
        fold_0/  fold_1/       ... or, with split.fold=all, one run per fold
    multirun/STUDY/            a sweep
        7/                     a trial: a run
        7/seed_0/  7/seed_1/   ... or, with several seeds, one run per seed
        7/fold_0/  7/fold_1/   ... or, with folds, one run per fold
        7/seed_0/fold_0/       ... with both
        best -> 7              the best trial

Imports no torch: the controller of a sweep and the uploader use it too.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# A run's directory.
CONFIG = "config.yaml"  # resolved, paths absolute
ENVIRONMENT = "environment.json"  # command, overrides, git state, versions
SPLIT = "split.csv"
COPIES = "copies.npz"  # images that are like another one with another label or split, if any
CODE_DIFF = "code.diff"  # how the code differed from its commit
JOURNAL = "events.jsonl"  # every metric; what MLflow is filled from
CHECKPOINTS = "checkpoints"  # holds nothing but weights
BEST = f"{CHECKPOINTS}/best.pt"
LAST = f"{CHECKPOINTS}/last.pt"  # what a run resumes from
PREDICTIONS = "predictions.npz"  # of the best checkpoint
DECISIONS = "decisions.json"  # of an ensemble: how labels follow from its probabilities
MEMBERS = "members"  # of an ensemble: members/0, ... each with a config and a best checkpoint
FIGURES = "figures"
RESULT = "result.json"  # how the run ended
TRACEBACK = "traceback.txt"
RUN_LOG = "train.log"
HEARTBEAT = ".alive"

# A run's directory and a sweep's.
LOCK = ".lock"
HYDRA = ".hydra"
HYDRA_OVERRIDES = f"{HYDRA}/overrides.yaml"
UPLOADER_LOG = "uploader.log"
UPLOADED = ".mlflow.json"  # what each tracking store has already
UPLOADED_LOCK = ".mlflow.lock"

# A sweep's directory.
SWEEP = "sweep.yaml"  # what the sweep was started with
SWEEP_LOG = "sweep.log"
SWEEP_UID = ".sweep_uid"
STUDY = "study.db"
WARM_START = "warm_start.json"
TRIALS = "trials.csv"
OPTIMIZATION_RESULTS = "optimization_results.yaml"
PRESET_GROUP = "experiment"  # the config group of presets; --config-dir finds it by this name
BEST_TRIAL = "best"  # a link to the best run, and the name of its preset
PRESET = f"{PRESET_GROUP}/{BEST_TRIAL}.yaml"
REPORT = "report.html"
RANGES = "ranges.json"  # of a sweep whose best values lie at the end of a range
CONFIRMATION = "confirmation.json"  # of a confirmation, and of the study that it confirms
TRIAL_ERROR = "error.txt"  # in a failed trial's directory

# What a run or sweep leaves behind if it fails before it starts: nothing to lose or to resume.
LEFT_BY_A_FAILED_START = frozenset(
    {
        *(HYDRA, RUN_LOG, UPLOADER_LOG, SWEEP_LOG, LOCK),
        *(RESULT, SPLIT, COPIES, CONFIG, ENVIRONMENT, CODE_DIFF),
    }
)

_SEED = "seed_"
_FOLD = "fold_"


class Place(NamedTuple):
    """A run of a sweep: which trial's, and which of its seeds and folds."""

    number: int
    seed: int | None = None  # index, from 0; None: the trial has one seed
    fold: int | None = None  # index, from 0; None: the trial has no folds

    def __str__(self) -> str:
        """Return the directory, relative to the sweep's: ``7``, ``7/seed_0`` or ``7/fold_0``."""
        parts = [str(self.number)]
        parts += [] if self.seed is None else [f"{_SEED}{self.seed}"]
        parts += [] if self.fold is None else [fold_name(self.fold)]
        return "/".join(parts)


def fold_name(fold: int) -> str:
    """Return the directory of a fold, relative to that of its trial, seed or run."""
    return f"{_FOLD}{fold}"


def run_place(number: int, seed: int | None = None, fold: int | None = None) -> str:
    """Return the directory of a trial's run, relative to the sweep's; see `Place`."""
    return str(Place(number, seed, fold))


def parse_place(place: str) -> Place:
    """Return what `run_place` made the directory of."""
    number, *parts = place.split("/")
    index = {part.partition("_")[0] + "_": int(part.partition("_")[2]) for part in parts}
    return Place(int(number), index.get(_SEED), index.get(_FOLD))


def runs_of_trial(trial_dir: Path) -> list[Path]:
    """Return the directories of a trial's runs: its own, or those of its seeds and folds in order.

    Also of a single run with all folds.
    """
    seeds = _natural(trial_dir.glob(f"{_SEED}*")) or [trial_dir]
    return [run for seed in seeds for run in _natural(seed.glob(f"{_FOLD}*")) or [seed]]


def trial_of_link(directory: Path) -> Path:
    """Return `directory`, resolved; of the link to a sweep's best run the whole trial."""
    run_dir = directory.resolve()
    if not directory.is_symlink():
        return run_dir
    sweep_dir = sweep_directory(run_dir)
    return sweep_dir / run_dir.relative_to(sweep_dir).parts[0]


def whole_trial(directory: Path) -> Path:
    """Return `directory` as it is; of the link to a sweep's best run the whole trial."""
    return trial_of_link(directory) if directory.is_symlink() else directory


def run_directories(directory: Path) -> list[Path]:
    """Return `directory` itself if it is a run's, else the runs of the sweep or folder, in order.

    Only directories with a journal count. The link to the best trial is not followed.
    """
    if (directory / JOURNAL).exists():
        return [directory]
    runs: list[Path] = []
    for child in directory.iterdir() if directory.is_dir() else ():
        if child.is_symlink() and child.resolve().is_relative_to(directory.resolve()):
            continue
        runs += [run for run in runs_of_trial(child) if (run / JOURNAL).exists()]
    return _natural(runs)


def file_inside(directory: Path, path: str) -> Path | None:
    """Return the file `path` of a run or sweep; None if there is none, or if it lies outside.

    A journal may come from a stranger: its paths may be absolute, climb with `..`, or be links.
    """
    file = directory / path
    return file if is_inside(directory, path) and file.is_file() else None


def is_inside(directory: Path, path: str) -> bool:
    """Return whether `path`, as seen from `directory`, leads to a place within it."""
    try:
        return (directory / path).resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no path at all
        return False


def holds_sweep(directory: Path) -> bool:
    """Return whether the runs in `directory` are numbered, as those of a sweep are.

    A run's own directory, a trial's with several seeds, and a folder of single runs are no sweeps.
    """
    runs = run_directories(directory)
    is_numbered = all(
        run.relative_to(directory).parts[:1][0].isdigit() for run in runs if run != directory
    )
    return bool(runs) and directory not in runs and is_numbered


def sweep_directory(run_dir: Path) -> Path:
    """Return the directory that a sweep with this run would have."""
    trial_dir = run_dir
    for prefix in (_FOLD, _SEED):
        is_part = trial_dir.name.startswith(prefix)
        # A run of the user's may be named so.
        if is_part and (trial_dir.parent.name.isdigit() or trial_dir.parent.name.startswith(_SEED)):
            trial_dir = trial_dir.parent
    return trial_dir.parent


def is_first_of_trial(run_dir: Path) -> bool:
    """Return whether a run of a sweep is the first one of its trial; a single run always is."""
    run_dir = run_dir.resolve()
    _, *parts = run_dir.relative_to(sweep_directory(run_dir)).parts
    return all(part in (f"{_SEED}0", f"{_FOLD}0") for part in parts)


def _natural(paths: Iterable[Path]) -> list[Path]:
    """Sort paths so that ``2`` comes before ``10``."""
    return sorted(paths, key=lambda path: [(len(part), part) for part in path.parts])
