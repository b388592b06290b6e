"""The command `visionsweep VERB`, where its configs come from, and that a wheel holds them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT, CommandLine
from visionsweep.cli.main import main
from visionsweep.config import allowed
from visionsweep.program import command, program
from visionsweep.rundir.layout import CONFIG

OWN_LOSS = """
from visionsweep.losses.cross_entropy import CrossEntropyLoss

class OwnLoss(CrossEntropyLoss):
    pass
"""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "\n  predict  "),
        ([], 1, "usage: visionsweep VERB"),
        (["trian"], 1, "report; did you mean train?"),
        (["resume", "outputs/a"], 1, "that is visionsweep train resume=outputs/NAME"),
        (["predict", "--help"], 0, "usage: visionsweep predict run="),
        (["predict", "out=x"], 1, "error: run: not set"),
        (["evaluate", "--help"], 0, "usage: visionsweep evaluate run=DIR"),
        (["evaluate"], 1, "error: run: expected visionsweep evaluate run=DIR, e.g. run=multirun/"),
        (["compare", "--help"], 0, "usage: visionsweep compare DIR"),
        (["sync", "--help"], 0, "usage: visionsweep sync "),
    ],
)
def test_verbs(
    arguments: list[str],
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/visionsweep", *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        found = main()
    except SystemExit as end:
        found = end.code
    assert found == code
    assert text in "".join(capsys.readouterr())


def test_configs_of_ones_own_come_first(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf/loss").mkdir(parents=True)
    (tmp_path / "conf/local").mkdir()
    (tmp_path / "own_loss.py").write_text(OWN_LOSS)
    (tmp_path / "conf/loss/mine.yaml").write_text("_target_: own_loss.OwnLoss\nbeta: 0.5\n")
    (tmp_path / "conf/loss/focal.yaml").write_text("_target_: torch.nn.MSELoss\n")
    (tmp_path / "conf/local/default.yaml").write_text("# @package _global_\nseed: 7\n")
    assert "_target_: torch.nn.MSELoss" in command_line("loss=focal", "--cfg", "job").stdout
    outcome = command_line(*QUICK, "loss=mine", "name=refused")
    assert outcome.stderr.startswith("error: loss._target_: 'own_loss.OwnLoss' is not allowed")
    assert "expected a loss of visionsweep.losses" in outcome.stderr
    monkeypatch.setattr(allowed, "_GIVEN", "own_loss.*")
    outcome = command_line(*QUICK, "trainer.epochs=1", "loss=mine", "name=first")
    assert outcome.code == 0, outcome.text
    config = (tmp_path / "outputs/first" / CONFIG).read_text()
    assert "own_loss.OwnLoss" in config
    assert "\nseed: 7\n" in config


def test_the_conf_of_another_program_is_refused(tmp_path: Path, command_line: CommandLine) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text("defaults: [model: bert]\n")
    outcome = command_line(*QUICK)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {tmp_path}/conf/config.yaml would replace ")
    # A copy of visionsweep's own may be changed.
    text = (ROOT / "conf/config.yaml").read_text().replace("\nseed: 0", "\nseed: 5")
    (tmp_path / "conf/config.yaml").write_text(text)
    assert "\nseed: 5\n" in command_line("--cfg", "job").stdout


@pytest.mark.parametrize(
    ("argv", "own", "sync", "report"),
    [
        (["visionsweep train"], "visionsweep train", "visionsweep sync", "visionsweep report"),
        (
            ["python -m visionsweep train"],
            "python -m visionsweep train",
            "python -m visionsweep sync",
            "python -m visionsweep report",
        ),
        (["sub/train.py"], "python sub/train.py", "python sub/sync.py", "visionsweep report"),
        (
            ["train.py", "--config-dir", "my conf", "-cn=x"],
            "python train.py --config-dir 'my conf' -cn=x",
            "visionsweep sync",  # there is no sync.py
            "visionsweep report",
        ),
        (["app.py"], "python app.py", "visionsweep sync", "visionsweep report"),
    ],
)
def test_commands_are_typed_as_the_program_was_started(
    argv: list[str],
    own: str,
    sync: str,
    report: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/sync.py").touch()
    monkeypatch.setattr(sys, "argv", argv)
    assert (program(), command("sync"), command("report")) == (own, sync, report)


@pytest.mark.slow
def test_a_wheel_runs_in_an_empty_folder(tmp_path: Path) -> None:
    """Workers and the uploader are started from the wheel too."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / "source").mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, symlinks=True)
    (tmp_path / "source/conf/local").mkdir(exist_ok=True)
    (tmp_path / "source/conf/local/default.yaml").write_text("seed: 3\n")
    build = "-m pip wheel --no-deps --no-build-isolation --no-index -w wheels ./source"
    subprocess.run([sys.executable, *build.split()], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    site = tmp_path / "site"
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "visionsweep = visionsweep.cli.main:main" in entry_points.read_text()
    configs = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    configs = {path for path in configs if path.parts[0] != "local"}
    packaged = site / "visionsweep/conf"
    assert {path.relative_to(packaged) for path in packaged.rglob("*.yaml")} == configs

    (tmp_path / "empty").mkdir()
    arguments = (
        "--multirun study=s hydra.sweeper.n_trials=2 trainer.epochs=1 hydra.launcher.n_jobs=1"
    )
    done = subprocess.run(
        [sys.executable, "-m", "visionsweep", "train", *arguments.split()],
        cwd=tmp_path / "empty",
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MLflow: 0 records behind" in done.stdout
    assert "python -m visionsweep train --multirun study=s" in done.stdout
