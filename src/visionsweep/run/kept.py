"""The last few paused trials of a worker stay in memory, so that going on with one loads nothing.

Only while its checkpoint is the file that this process wrote: after another process had the trial,
or somebody put a file back, it is loaded as ever.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionsweep.run.assemble import RunParts
from visionsweep.rundir.layout import BEST, LAST
from visionsweep.training.reproducibility import set_deterministic, set_tf32

MAX_RUNS = 4
MAX_BYTES = 1 << 30  # of each: weights, averages and optimizer, where they are

_kept: dict[Path, "_Kept"] = {}  # the one paused last comes last


@dataclass(frozen=True)
class _Kept:
    parts: RunParts
    progress: dict[str, Any]
    files: list[tuple[int, int, int] | None]
    threads: int
    is_deterministic: bool


def keep(run_dir: Path, parts: RunParts, progress: dict[str, Any]) -> None:
    """Keep the parts of a run at the end of an epoch, after its last checkpoint was written.

    ``progress``: of its `Recorder`. Does nothing for a run that is too large. Runs on other images
    are dropped, since they would keep these in memory.
    """
    for other in [path for path, kept in _kept.items() if kept.parts.dataset is not parts.dataset]:
        del _kept[other]
    if _num_bytes(parts.state.state_dict()) > MAX_BYTES:
        return
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    _kept[run_dir] = _Kept(
        parts, progress, _files(run_dir), torch.get_num_threads(), is_deterministic
    )
    if len(_kept) > MAX_RUNS:
        del _kept[next(iter(_kept))]


def take(run_dir: Path) -> tuple[RunParts, dict[str, Any]] | None:
    """Return what `keep` got, and forget it; None if the run was not kept or its files are others.

    Sets the threads and the precision of the run, as `assemble` does.
    """
    kept = _kept.pop(run_dir, None)
    if kept is None or kept.files != _files(run_dir):
        return None
    torch.set_num_threads(kept.threads)
    set_deterministic(kept.is_deterministic)
    set_tf32(kept.parts.settings.precision == "tf32")
    return kept.parts, kept.progress


def forget_runs() -> None:
    """Free all kept runs."""
    _kept.clear()


def _files(run_dir: Path) -> list[tuple[int, int, int] | None]:
    return [_identity(run_dir / name) for name in (LAST, BEST)]


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _num_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return 0
    return sum(map(_num_bytes, value))
