"""`confirm=multirun/STUDY` on the command line."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command
from tests.images import CLASSES, make_image
from visionsweep.cli.confirm import confirm_overrides
from visionsweep.sweep.stored import Stored


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes the stored sweep `multirun/faces` with these changes."""
    monkeypatch.chdir(tmp_path)

    def write(**changes: Any) -> str:
        search = {"space": {"optim.lr": {"type": "float"}}, "seeds": 1, "seed_key": "seed"}
        stored = {
            "id": "a",
            "study_name": "faces",
            "task_overrides": [
                "study=faces",
                "sweep=losses",
                "optim.lr=0.1,0.2",
                "trainer.epochs=3",
            ],
            "hydra_overrides": ["hydra.sweeper.n_trials=50", "hydra.launcher.n_jobs=2"],
            "search": search | changes.pop("search", {}),
            "config": {"seed": 4},
            "seed": 0,
            "git_commit": None,
        }
        (tmp_path / "multirun/faces").mkdir(parents=True, exist_ok=True)
        Stored(**(stored | changes)).write(tmp_path / "multirun/faces")
        return "multirun/faces"

    return write


def test_the_fixed_config_is_that_of_the_study_with_a_new_seed(study: Any) -> None:
    assert confirm_overrides(study(), ["--multirun"]) == [
        *("sweep=confirm", "hydra.launcher.n_jobs=2", "trainer.epochs=3", "study='faces-confirm'"),
        *("seed=5", "hydra.sweeper.confirm='multirun/faces'"),
    ]


def test_what_is_given_replaces_what_the_study_has(study: Any) -> None:
    given = ["trainer.epochs=9", "study=again", "hydra.launcher.n_jobs=4"]
    found = confirm_overrides(study(), given)
    assert found == [
        "sweep=confirm",
        "study='again'",
        "seed=5",
        "hydra.sweeper.confirm='multirun/faces'",
    ]


@pytest.mark.parametrize(
    ("search", "config", "seed"),
    [
        ({"seeds": 3}, {"seed": 4}, 7),
        ({"space": {"seed": {"choices": [0, 11, 3]}}}, {"seed": 0}, 12),
        ({"space": {"seed": {"type": "int", "low": 0, "high": 20}}}, {"seed": 0}, 21),
        ({"folds": 5}, {"seed": 0}, 1),
    ],
)
def test_no_seed_is_one_that_the_study_used(
    study: Any, search: dict[str, Any], config: dict[str, Any], seed: int
) -> None:
    found = confirm_overrides(study(search=search, config=config), [])
    assert f"seed={seed}" in found
    assert ("hydra.sweeper.folds=5" in found) == ("folds" in search)


def test_a_confirmation_that_exists_is_resumed_by_its_name(
    study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = study()
    target = tmp_path / "multirun/faces-confirm"
    target.mkdir()
    text = (tmp_path / directory / "sweep.yaml").read_text()
    (target / "sweep.yaml").write_text(text.replace("seeds: 1", "confirm: {study: multirun/faces}"))
    assert confirm_overrides(directory, []) == ["study='faces-confirm'"]
    (target / "sweep.yaml").write_text(text)
    with pytest.raises(SystemExit):
        confirm_overrides(directory, [])
    assert "multirun/faces-confirm holds another sweep; move it away" in capsys.readouterr().err


def test_a_masked_password_has_to_be_given_again(
    study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = study(task_overrides=["tracking.uri=postgresql://me:***@host/db"])
    with pytest.raises(SystemExit):
        confirm_overrides(directory, [])
    assert "confirm: tracking.uri held a password, which is not stored" in capsys.readouterr().err


QUICK = ("tracking=none", "hydra.launcher.n_jobs=2", "trainer.epochs=3", "trainer.batch_size=8")


@pytest.mark.slow
def test_a_confirmation_that_is_killed_resumes_and_ends_with_one_test_score(
    train: Command, tmp_path: Path
) -> None:
    for part, count in (("train", 16), ("test", 4)):
        for index, name in enumerate(CLASSES):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                make_image(index, number + 50 * (part == "test")).save(folder / f"{number}.png")
    data = (f"data.root={tmp_path / 'photos'}", "data=image_folder", "data.image_size=8")
    (tmp_path / "conf/optim").mkdir(parents=True)
    # The baseline trains nothing, so it loses clearly.
    slow = "defaults: [adamw, _self_]\nlr: 1e-9\n"
    (tmp_path / "conf/optim/slow.yaml").write_text(slow)
    search = ("optim=slow", "optim.lr=0.01,0.02", "hydra/sweeper/sampler=grid")
    done = train("--multirun", "study=s", *data, *QUICK, *search)
    assert done.returncode == 0, done.stderr
    command = ["--multirun", "confirm=multirun/s", "hydra.sweeper.seeds=4"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    directory = tmp_path / "multirun/s-confirm"
    deadline = time.monotonic() + 200
    while not list(directory.glob("*/seed_1/result.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)  # polls another process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {p: p.stat().st_mtime_ns for p in directory.glob("*/seed_*/result.json")}
    done = train(*command)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns >= time_ns for path, time_ns in before.items())
    record = json.loads((directory / "confirmation.json").read_text())
    assert json.loads((tmp_path / "multirun/s/confirmation.json").read_text()) == record
    with (directory / "trials.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["state"] for row in rows] == ["complete"] * len(rows)
    scored = [
        path.parts[-3]
        for path in directory.glob("*/seed_*/result.json")
        if json.loads(path.read_text())["test"] is not None
    ]
    assert record["confirmed_trial"] in (1, 2)
    assert scored == [str(record["confirmed_trial"])] * record["seeds"]
    assert len(record["test"]) == record["seeds"]
    assert "beats the baseline (optim.lr=1e-9)" in done.stdout
    assert "the test split was used once, by this configuration" in done.stdout
    last = [line for line in done.stdout.splitlines() if line.startswith("selected: ")]
    assert len(last) == 1
