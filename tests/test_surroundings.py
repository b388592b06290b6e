"""Commands in odd surroundings, from the command line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT

SWEEP = ["--multirun", "study=s", "hydra.sweeper.n_trials=1", "hydra.sweeper.check=null"]
# the arguments of each command, and what it writes
VERBS = {
    "run": ([*["train", "name=again"], *QUICK], "outputs/again/result.json"),
    "sweep": (["train", *QUICK, *SWEEP], "multirun/s/0/result.json"),
    "predict": (["predict", "run=outputs/a", "data.predict=images", "out=out.csv"], "out.csv"),
    "report": (["report", "outputs/a"], "outputs/a/figures"),
    "sync": (["sync", "outputs/a", "--uri", "sqlite:///mlflow.db", "--dry-run"], None),
}


def shell(directory: Path, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run, `outputs/a`, and images."""
    from PIL import Image

    directory = tmp_path_factory.mktemp("surroundings")
    (directory / "images").mkdir()
    Image.new("L", (8, 8)).save(directory / "images/0.png")
    done = shell(directory, f"{sys.executable} {ROOT}/train.py {' '.join(QUICK)} name=a")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("streams", [">&- 2>&-", "2>&1 | true"], ids=["closed", "no reader"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_needs_no_stream(trained: Path, verb: str, streams: str) -> None:
    arguments, written = VERBS[verb]
    shell(trained, "rm -rf outputs/again multirun out.csv outputs/a/figures")
    done = shell(trained, f"{sys.executable} -m visionsweep {' '.join(arguments)} {streams}")
    assert done.returncode == (verb == "sync")  # a run that nobody sent is behind
    assert written is None or (trained / written).exists()
    if verb == "run":
        assert "epoch 2/2" in (trained / "outputs/again/train.log").read_text()
