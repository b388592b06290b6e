"""Each file of a run, empty or garbled: tolerated, or one line that names it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import QUICK, CommandLine, Outcome
from tests.test_surroundings import shell
from visionsweep.cli.main import main
from visionsweep.rundir.result import read_result, write_result

pytestmark = pytest.mark.slow

CONTENTS = (b"", b"\xff\x00[1]\n")

RESUME = ["train", "resume=outputs/a"]
REPORT = ["report", "outputs/a"]
PREDICT = ["predict", "run=outputs/a", "data.predict=images", "out=out.csv"]
SYNC = ["sync", "outputs/a", "--uri", "sqlite:///mlflow.db", "--dry-run"]
# the files of a run, and the commands that read them
RUN_FILES = {
    "config.yaml": (RESUME, REPORT, PREDICT),
    "environment.json": (RESUME,),
    "result.json": (RESUME, REPORT, PREDICT),
    "split.csv": (RESUME,),
    "events.jsonl": (RESUME, REPORT, SYNC),
    "checkpoints/best.pt": (RESUME, PREDICT),
    "checkpoints/last.pt": (RESUME,),
    "predictions.npz": (RESUME, REPORT),
    "code.diff": (RESUME,),
    "train.log": (RESUME,),
    ".alive": (RESUME, SYNC),
    ".lock": (RESUME,),
    ".mlflow.json": (RESUME, SYNC),
    ".mlflow.lock": (SYNC,),
    ".hydra/config.yaml": (RESUME,),
    ".hydra/overrides.yaml": (RESUME,),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was stopped before its end."""
    from PIL import Image

    directory = tmp_path_factory.mktemp("made")
    (directory / "images").mkdir()
    Image.new("L", (8, 8)).save(directory / "images/0.png")
    train = f"{sys.executable} -m visionsweep train {' '.join(QUICK)}"
    done = shell(directory, f"{train} name=a")
    assert done.returncode == 0, done.stderr
    run_dir = directory / "outputs/a"
    write_result(run_dir, {**(read_result(run_dir) or {}), "state": "stopped"})
    return directory


@pytest.fixture
def verb(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Return a function that runs `visionsweep VERB ...` in process."""

    def run(name: str, *arguments: str) -> Outcome:
        if name == "train":
            return command_line(*arguments)
        monkeypatch.setattr(sys, "argv", ["visionsweep", name, *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        return Outcome(main(), *capfd.readouterr())

    return run


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_damaged_file_of_a_run(made: Path, verb: Callable[..., Outcome], name: str) -> None:
    for content in CONTENTS:
        for command in RUN_FILES[name]:
            for folder in ("outputs", "images"):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(made / folder, folder)
            Path("outputs/a", name).write_bytes(content)
            outcome = verb(*command)
            assert "Traceback" not in outcome.text
            if outcome.code and command[0] != "sync":  # which tells what is behind
                (line,) = [row for row in outcome.stderr.splitlines() if row.startswith("error: ")]
                assert name in line


def test_every_file_of_a_run_is_damaged_above(made: Path) -> None:
    found = {path.name for path in (made / "outputs/a").iterdir() if path.is_file()}
    assert found <= {*RUN_FILES, "uploader.log"}


def test_damaged_files_of_a_sweep(tmp_path: Path) -> None:
    start = f"{sys.executable} -m visionsweep train {' '.join(QUICK)} --multirun study=a"
    sizes = "hydra.launcher.n_jobs=1 hydra.sweeper.n_trials="
    done = shell(tmp_path, f"{start} {sizes}1")
    assert done.returncode == 0, done.stderr
    sweep_dir = tmp_path / "multirun/a"
    for name in ("trials.csv", "sweep.log", "optimization_results.yaml", ".lock"):  # made again
        (sweep_dir / name).write_bytes(CONTENTS[1])
    done = shell(tmp_path, f"{start} {sizes}2")
    assert done.returncode == 0, done.stderr
    assert (sweep_dir / "trials.csv").read_text().count("complete") == 2
    for name, content in (("study.db", CONTENTS[1]), ("sweep.yaml", CONTENTS[0])):
        whole = (sweep_dir / name).read_bytes()
        (sweep_dir / name).write_bytes(content)
        done = shell(tmp_path, f"{start} {sizes}3")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        (line,) = [row for row in done.stderr.splitlines() if row.startswith("error: ")]
        assert name in line
        (sweep_dir / name).write_bytes(whole)
