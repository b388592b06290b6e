"""Every name and place in the directories of runs and sweeps. No other module spells them out.

    outputs/NAME/              a run
    multirun/STUDY/            a sweep
        7/                     a trial: a run
        7/seed_0/  7/seed_1/   ... or, with several seeds, one run per seed
        best -> 7              the best trial

Imports no torch: the controller of a sweep and the uploader use it too.
"""

from collections.abc import Iterable
from pathlib import Path

# A run's directory.
CONFIG = "config.yaml"  # resolved, paths absolute
ENVIRONMENT = "environment.json"  # command, overrides, git state, versions
SPLIT = "split.csv"
CODE_DIFF = "code.diff"  # how the code differed from its commit
JOURNAL = "events.jsonl"  # every metric; what MLflow is filled from
CHECKPOINTS = "checkpoints"  # holds nothing but weights
BEST = f"{CHECKPOINTS}/best.pt"
LAST = f"{CHECKPOINTS}/last.pt"  # what a run resumes from
PREDICTIONS = "predictions.npz"  # of the best checkpoint
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
TRIAL_ERROR = "error.txt"  # in a failed trial's directory

# What a run or sweep leaves behind if it fails before it starts: nothing to lose or to resume.
LEFT_BY_A_FAILED_START = frozenset(
    {
        *(HYDRA, RUN_LOG, UPLOADER_LOG, SWEEP_LOG, LOCK),
        *(RESULT, SPLIT, CONFIG, ENVIRONMENT, CODE_DIFF),
    }
)

_SEED = "seed_"


def run_place(number: int, seed_index: int | None = None) -> str:
    """Return the directory of a trial's run, relative to the sweep's: ``7``, or ``7/seed_0``."""
    return str(number) if seed_index is None else f"{number}/{_SEED}{seed_index}"


def parse_place(place: str) -> tuple[int, int | None]:
    """Return trial number and seed index of what `run_place` returned."""
    number, _, seed = place.partition("/")
    return int(number), int(seed.removeprefix(_SEED)) if seed else None


def runs_of_trial(trial_dir: Path) -> list[Path]:
    """Return the directories of a trial's runs: its own, or those of its seeds in order."""
    return _natural(trial_dir.glob(f"{_SEED}*")) or [trial_dir]


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
        if (child / JOURNAL).exists():
            runs.append(child)
        elif child.name.isdigit():
            runs += [journal.parent for journal in child.glob(f"{_SEED}*/{JOURNAL}")]
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
    is_seed = run_dir.name.startswith(_SEED) and run_dir.parent.name.isdigit()
    return run_dir.parent.parent if is_seed else run_dir.parent


def _natural(paths: Iterable[Path]) -> list[Path]:
    """Sort paths so that ``2`` comes before ``10``."""
    return sorted(paths, key=lambda path: [(len(part), part) for part in path.parts])
