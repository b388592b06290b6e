"""Checkpoints, and the state of the random generators: what a run needs for an exact resume.

Checkpoints hold only tensors and plain containers, so they load with `weights_only=True`: a
checkpoint from a stranger runs no code.
"""

import random
import zipfile
from pathlib import Path
from typing import Any

import torch

from visionsweep.errors import UserError
from visionsweep.rundir.atomic import atomic_write
from visionsweep.rundir.layout import holds_sweep, sweep_directory
from visionsweep.rundir.result import read_result
from visionsweep.text import first_line
from visionsweep.training.reproducibility import restore_torch_rng_states, torch_rng_states

FORMAT = 1


def save(contents: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically. The same contents give the same bytes."""
    with atomic_write(path) as file:
        torch.save({"format": FORMAT, **contents}, file)


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Raises `UserError` if it is missing, damaged or of another format."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: {_why_missing(path)}")
    try:
        # torch.load does not compare the checksums that torch.save writes.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
        contents = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise UserError(
            f"cannot read {path} ({first_line(error)}): it is damaged, or not a checkpoint"
        ) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        found = contents.get("format") if isinstance(contents, dict) else None
        raise UserError(f"{path}: expected checkpoint format {FORMAT}, got {found}")
    return contents


def _why_missing(path: Path) -> str:
    run_dir = path.parent.parent
    result = read_result(run_dir)
    if result is None or not result.get("best_epoch"):
        return "the run has not finished an epoch"
    if holds_sweep(sweep_directory(run_dir)):
        return (
            "a sweep keeps the weights of its best trials (hydra.sweeper.keep_checkpoints). Take "
            "one of those, or train this one again with its own command"
        )
    return "it was removed after the run; train again"


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the states of all global random generators that a run on `device` uses."""
    import numpy as np

    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch_rng_states(device),
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],  # type: ignore[union-attr]
    }


def restore_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore all global random generators from `rng_state`."""
    import numpy as np

    restore_torch_rng_states(state["torch"], device)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype("uint32"), position, has_gauss, cached))
