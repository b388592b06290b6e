"""Shared fixtures: a small run in a temporary directory, composed as the command line does it."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import visionsweep.config.schema  # noqa: F401 - registers the schema
from visionsweep.cli.main import main

ROOT = Path(__file__).parent.parent

# One thread: two differ from one in the last bits, and are ten times slower on shared machines.
torch.set_num_threads(1)

QUICK = ["tracking=none", "trainer.epochs=2", "trainer.threads=1"]


def one_fast(cases: Mapping[str, Any], fast: str) -> list[Any]:
    """Return the cases as parameters, their names as ids; all but one are slow."""
    return [
        pytest.param(case, id=name, marks=() if name == fast else pytest.mark.slow)
        for name, case in cases.items()
    ]


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def train(tmp_path: Path) -> Command:
    """Return a function that runs `python train.py ARGUMENTS` in the temporary directory."""

    def run(*arguments: str, script: str = "train.py") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / script), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )

    return run


Compose = Callable[..., DictConfig]


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    """Return a function that composes the config of a run below the temporary directory."""
    monkeypatch.chdir(tmp_path)
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        yield lambda *overrides, **keywords: hydra.compose(
            "config", [*QUICK, *overrides], **keywords
        )


@dataclass(frozen=True)
class Outcome:
    """The end of a command, as a user sees it."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


CommandLine = Callable[..., Outcome]


@pytest.fixture
def command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> CommandLine:
    """Return a function that runs `visionsweep train ARGUMENTS` in process, in an empty directory.

    Seconds faster than a process of its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["visionsweep", "train", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        handlers = logging.getLogger().handlers[:]
        code = 0
        try:
            code = main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            for handler in logging.getLogger().handlers[:]:
                if handler not in handlers:
                    handler.close()
                    logging.getLogger().removeHandler(handler)
        return Outcome(code, *capfd.readouterr())

    return run
