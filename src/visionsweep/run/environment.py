"""What a run was made with: the command, the state of the code, versions, processor."""

import functools
import platform
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

SOURCE = Path(__file__).parent  # the code whose state is recorded
MAX_DIFF = 1_000_000  # characters


@functools.cache  # a process runs the code that it imported, even if the files change
def git_state(directory: Path = SOURCE) -> dict[str, Any]:
    """Return the commit of the code and whether tracked files differ from it.

    Both are None outside of git.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    status = _git(directory, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": bool(status) if status is not None else None}


@functools.cache
def git_diff(directory: Path = SOURCE) -> str:
    """Return how tracked files of the code differ from the commit, up to `MAX_DIFF` characters."""
    if not git_state(directory)["dirty"]:
        return ""
    diff = _git(directory, "diff", "--no-color", "--no-ext-diff", "HEAD") or ""
    if len(diff) <= MAX_DIFF:
        return diff
    return f"{diff[:MAX_DIFF]}\n... cut off: {len(diff):,} characters in all\n"


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


@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Return command, git state, versions, processor and threads of this process."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
