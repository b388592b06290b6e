"""Seeds, the number of threads, and the record of what a run ran on."""

import functools
import hashlib
import os
import platform
import random
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "adamp",
    "hydra-core",
    "omegaconf",
    "optuna",
    "mlflow",
    "numpy",
)

MAX_DIFF = 1_000_000


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part, and hardly ever on two lists alike.

    Used for what must not depend on how often a generator was drawn from before: the order of an epoch and the
    augmentation of a batch follow from (seed, epoch, batch), so a resumed run needs no state for them.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch (all devices), Python and NumPy."""
    import numpy as np

    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def torch_rng_states(device: torch.device) -> list[torch.Tensor]:
    """Return the states of torch's CPU generator and of the device's own, if it has one."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def restore_torch_rng_states(states: list[torch.Tensor], device: torch.device) -> None:
    """Put the generators back; a run that goes on on another kind of device has only the CPU's in common."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)
    elif device.type == "mps" and len(states) > 1:
        torch.mps.set_rng_state(states[1].cpu())


def set_deterministic(enabled: bool) -> None:
    """Ask torch for deterministic algorithms everywhere, or give it the choice back."""
    if enabled:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # cuBLAS needs it before its first use
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
    torch.backends.cudnn.benchmark = not enabled


@functools.cache  # a process runs the code that it imported, whatever happens to the files
def git_state(directory: Path) -> dict[str, Any]:
    """Return the commit that `directory` is at and whether files differ from it; Nones outside of git."""
    commit = _git(directory, "rev-parse", "HEAD")
    status = _git(directory, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": bool(status) if status is not None else None}


@functools.cache
def git_diff(directory: Path) -> str:
    """Return what files that git knows differ by from the commit; empty outside of git, cut after a million letters."""
    diff = (
        (_git(directory, "diff", "--no-color", "--no-ext-diff", "HEAD") or "")
        if git_state(directory)["dirty"]
        else ""
    )
    return (
        diff
        if len(diff) <= MAX_DIFF
        else f"{diff[:MAX_DIFF]}\n... cut here: {len(diff):,} letters in all\n"
    )


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment(directory: Path) -> dict[str, Any]:
    """Return what a run ran on: command, git state, versions, processor, threads."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_state(directory),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
