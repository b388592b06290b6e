"""Private parts of Hydra that `cli/_hydra.py` uses, and the presets of strangers that need them."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import QUICK, CommandLine, one_fast
from visionsweep.config import allowed
from visionsweep.rundir.layout import CONFIG, ENVIRONMENT

THESIS = "precious"
PRESETS = {
    "environment": ("job: {env_set: {VISIONSWEEP_ALLOW: os.*}}", "hydra.job.env_set: a config may"),
    "job logging": (
        "job_logging: {handlers: {file: {filename: thesis.log, mode: w}}}",
        "hydra logging, handler file: expected a file",
    ),
    "hydra logging": (
        "hydra_logging: {handlers: {x: {class: logging.FileHandler, filename: thesis.log}}}",
        "hydra logging, handler x: expected a file",
    ),
    "factory": (
        "job_logging: {handlers: {file: {(): os.system, command: rm thesis.log}}}",
        "hydra.logging: 'os.system' is not in this program's allow-list",
    ),
    "callback": (
        "callbacks: {evil: {_target_: os.system, command: rm thesis.log}}",
        "hydra.callbacks.evil: 'os.system' is not in this program's allow-list",
    ),
    "component as callback": (
        "callbacks: {evil: {_target_: visionsweep.models.cnn.CNN}}",
        "hydra.callbacks.evil: 'visionsweep.models.cnn.CNN' is not in this program's allow-list",
    ),
}


@pytest.mark.parametrize("case", one_fast(PRESETS, "hydra logging"))
def test_the_preset_of_a_stranger_runs_nothing(
    case: tuple[str, str], tmp_path: Path, command_line: CommandLine
) -> None:
    preset, message = case
    (tmp_path / "theirs/experiment").mkdir(parents=True)
    (tmp_path / "thesis.log").write_text(THESIS)
    (tmp_path / "theirs/experiment/best.yaml").write_text(
        f"# @package _global_\nhydra:\n  {preset}\n"
    )
    outcome = command_line("--config-dir", "theirs", "experiment=best", *QUICK, "name=x")
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {message}"), outcome.stderr
    assert (tmp_path / "thesis.log").read_text() == THESIS


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of configs whose import leaves a trace."""
    (tmp_path / "their_configs/model").mkdir(parents=True)
    (tmp_path / "their_configs/__init__.py").write_text("open('trace', 'w').close()\n")
    (tmp_path / "their_configs/model/theirs.yaml").write_text("a: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_configs", raising=False)
    return "pkg://their_configs"


def test_a_search_path_imports_no_package(
    package: str, tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [f"hydra.searchpath=[{package}]", "model=theirs", "--cfg", "job"]
    outcome = command_line(*arguments)
    assert outcome.stderr.startswith("error: hydra.searchpath: pkg://their_configs would run")
    assert not (tmp_path / "trace").exists()
    monkeypatch.setattr(allowed, "_GIVEN", "their_configs.*")
    assert "\n  a: 1\n" in command_line(*arguments).stdout


@pytest.mark.parametrize("flag", ["--config-path=pkg://their_configs", "-cdtheirs", "--multirun"])
def test_a_downloaded_run_gives_no_flags(
    flag: str, tmp_path: Path, command_line: CommandLine
) -> None:
    run_dir = tmp_path / "outputs/theirs"
    run_dir.mkdir(parents=True)
    (run_dir / CONFIG).write_text("name: theirs\n")
    (run_dir / ENVIRONMENT).write_text(json.dumps({"overrides": ["seed=1", flag]}))
    outcome = command_line("resume=outputs/theirs")
    assert outcome.code == 1
    assert f"holds '{flag}', which is no override" in outcome.stderr
