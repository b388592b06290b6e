"""Shared fixtures: a small run in a temporary directory, composed as the command line composes it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import DictConfig

import visionsweep.config  # noqa: F401 - registers the schema

ROOT = Path(__file__).parent.parent

# One thread: two differ from one in the last bits, and shared machines slow down tenfold with two.
torch.set_num_threads(1)

QUICK = ["tracking=none", "trainer.epochs=2", "trainer.threads=1"]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def train(tmp_path: Path) -> Command:
    """Return a function that runs `python train.py ARGUMENTS` in the temporary directory, as a user would."""

    def run(*arguments: str, script: str = "train.py") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / script), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)

    return run


Compose = Callable[..., DictConfig]


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    """Return a function that composes the config in process, for runs that write below the temporary directory."""
    monkeypatch.chdir(tmp_path)
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        yield lambda *overrides: hydra.compose("config", [*QUICK, *overrides])
