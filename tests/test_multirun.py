"""`python train.py --multirun` on real images: the documented commands, kills, resumes."""

import contextlib
import csv
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml

from tests.conftest import ROOT, Command
from tests.images import CLASSES, make_folder
from tests.run.test_resume import assert_same_bytes

pytestmark = pytest.mark.slow

SHORT = ["trainer.epochs=2", "trainer.threads=1", "tracking=none"]


def rows(sweep_dir: Path) -> list[dict[str, str]]:
    with (sweep_dir / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stored(sweep_dir: Path) -> list[tuple[Any, ...]]:
    """Return what the study holds, read by Optuna alone."""
    study = optuna.load_study(
        study_name=sweep_dir.name, storage=f"sqlite:///{sweep_dir / 'study.db'}"
    )
    return [
        (t.number, t.state.name, t.params, t.values, t.intermediate_values) for t in study.trials
    ]


def left_over(directory: Path) -> list[str]:
    """Return the processes whose current directory is `directory`."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == directory and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def assert_nothing_is_left(directory: Path) -> None:
    deadline = time.monotonic() + 10
    while left_over(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_over(directory) == []


def test_a_sweep_is_run_resumed_extended_and_refused(train: Command, tmp_path: Path) -> None:
    start = ["sweep=thorough", "study=faces", "hydra.sweeper.n_trials=6", "hydra.launcher.n_jobs=2"]
    done = train("--multirun", *start, *SHORT)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    program = os.path.relpath(ROOT / "train.py", tmp_path)
    resume = f"resume with: python {program} --multirun study=faces"
    assert lines[0] == "new study faces"
    assert resume in lines[: next(i for i, line in enumerate(lines) if line.startswith("#"))]
    assert lines[-1] == resume
    assert lines.count(resume) == 2
    sweep_dir = tmp_path / "multirun/faces"
    first = stored(sweep_dir)
    assert [t[0] for t in first] == list(range(6))
    for number, state, params, _, _ in first:
        assert state in ("COMPLETE", "PRUNED")
        overrides = yaml.safe_load((sweep_dir / f"{number}/.hydra/overrides.yaml").read_text())
        assert ("loss.gamma" in params) == (params["loss"] == "focal")
        assert any(o.startswith("loss.gamma=") for o in overrides) == (params["loss"] == "focal")
        result = json.loads((sweep_dir / f"{number}/result.json").read_text())
        assert result["state"] == {"COMPLETE": "finished", "PRUNED": "pruned"}[state]
        assert not (sweep_dir / f"{number}/checkpoints/last.pt").exists()

    again = train("--multirun", "study=faces")
    assert again.returncode == 0, again.stderr[-3000:]
    assert stored(sweep_dir) == first

    more = train("--multirun", "study=faces", "hydra.sweeper.n_trials=8")
    assert more.returncode == 0, more.stderr[-3000:]
    assert stored(sweep_dir)[:6] == first
    assert len(stored(sweep_dir)) == 8
    kept = [
        p.parent.parent.name
        for p in sweep_dir.glob("*/checkpoints/best.pt")
        if not p.parent.parent.is_symlink()
    ]
    complete = sorted(
        (t for t in stored(sweep_dir) if t[1] == "COMPLETE"), key=lambda t: (-t[3][0], t[0])
    )
    assert sorted(kept) == sorted(str(t[0]) for t in complete[:5])

    other = train("--multirun", "study=faces", "optim.lr=interval(0.1,0.2)")
    assert other.returncode == 1
    assert "multirun/faces was started with another search" in other.stderr
    assert "optim.lr.low: 0.0001 -> 0.1" in other.stderr
    assert len(stored(sweep_dir)) == 8
    assert_nothing_is_left(tmp_path)


def test_the_best_trial_is_repeated_by_its_command_and_its_preset(
    train: Command, tmp_path: Path
) -> None:
    # One worker with all cores, of which these small networks use one.
    budget = ["hydra.sweeper.n_trials=3", "hydra.launcher.n_jobs=1", "trainer.epochs=2"]
    done = train("--multirun", "study=s", *budget, "tracking=none")
    assert done.returncode == 0, done.stderr[-3000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("repeat trial")]
    command = shlex.split(line.partition(" with: python ")[2])
    best = tmp_path / "multirun/s/best"
    value = json.loads((best / "result.json").read_text())["objective"]["value"]
    subprocess.run(
        [sys.executable, *command, "name=again"], cwd=tmp_path, check=True, capture_output=True
    )
    preset = train("--config-dir", "multirun/s", "experiment=best", "name=preset")
    assert preset.returncode == 0, preset.stderr[-3000:]
    for name in ("again", "preset"):
        assert (
            json.loads((tmp_path / f"outputs/{name}/result.json").read_text())["objective"]["value"]
            == value
        )
        assert_same_bytes(tmp_path / f"outputs/{name}", best, "best.pt")
    make_folder(tmp_path / "new")
    predicted = train(
        "run=multirun/s/best", f"data.predict=new/{CLASSES[0]}", "out=x.csv", script="predict.py"
    )
    assert predicted.returncode == 0, predicted.stderr[-3000:]


def test_a_space_on_the_command_line_a_grid_and_a_plain_grid(
    train: Command, tmp_path: Path
) -> None:
    space = [
        "optim.lr=tag(log,interval(1e-4,1e-1))",
        "loss=focal,label_smoothing",
        "trainer.accumulate=1,2,4",
    ]
    done = train("--multirun", "study=space", *space, "hydra.sweeper.n_trials=3", *SHORT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = rows(tmp_path / "multirun/space")
    assert [row["number"] for row in found] == ["0", "1", "2"]
    assert all(1e-4 <= float(row["params.optim.lr"]) <= 1e-1 for row in found)
    assert {row["params.loss"] for row in found} <= {"focal", "label_smoothing"}

    done = train(
        "--multirun",
        "study=grid",
        "hydra/sweeper/sampler=grid",
        "loss=focal,f1",
        "optim=adam,adamp",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = rows(tmp_path / "multirun/grid")
    assert [(row["params.loss"], row["params.optim"]) for row in found] == [
        ("focal", "adam"),
        ("focal", "adamp"),
        ("f1", "adam"),
        ("f1", "adamp"),
    ]

    done = train(
        "--multirun",
        "study=plain",
        "hydra/sweeper=basic",
        "hydra/launcher=workers",
        "seed=range(5)",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [
        json.loads((tmp_path / f"multirun/plain/{n}/result.json").read_text()) for n in range(5)
    ]
    assert [result["state"] for result in results] == ["finished"] * 5
    assert len({result["objective"]["value"] for result in results}) > 1
    assert_nothing_is_left(tmp_path)


def test_a_dry_run_prints_the_plan_and_writes_nothing(train: Command, tmp_path: Path) -> None:
    done = train(
        "--multirun", "hydra.sweeper.dry_run=true", "sweep=losses", "study=s", "trainer.epochs=3"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "loss.gamma" in done.stdout
    assert "when loss=focal" in done.stdout
    assert "at most 120 epochs (3 per run, fewer with pruning)" in done.stdout
    assert "MB on disk for weights" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_pair_that_cannot_be_built_is_found_before_trial_0(
    train: Command, tmp_path: Path
) -> None:
    done = train(
        "--multirun", "study=s", "loss=focal,f1", "loss.gamma=1,2", *SHORT
    )  # f1 has no gamma: composed
    assert done.returncode == 1
    assert "loss=f1" in done.stderr
    assert "gamma" in done.stderr
    done = train(
        "--multirun", "study=s", "loss=focal,f1", "+loss.gama=1,2", *SHORT
    )  # neither has it: built
    assert done.returncode == 1
    assert "loss.gama: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "multirun/s/0").exists()
    mended = train("--multirun", "study=s", "seed=1,2", "hydra.sweeper.n_trials=1", *SHORT)
    assert mended.returncode == 0, mended.stderr[-3000:]


def test_nan_fails_one_trial_with_its_epoch_and_step(train: Command, tmp_path: Path) -> None:
    done = train(
        "--multirun",
        "study=s",
        "hydra/sweeper/sampler=grid",
        "optim=sgd",
        "optim.lr=1e30,1e-2",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    bad, good = rows(tmp_path / "multirun/s")
    assert (bad["state"], good["state"]) == ("failed", "complete")
    assert "at epoch 1, step" in bad["error"]
    assert "#0 " in done.stdout
    assert "multirun/s/0/error.txt" in done.stdout
    assert "loss is" in (tmp_path / "multirun/s/0/error.txt").read_text()


def test_several_objectives_and_several_seeds(train: Command, tmp_path: Path) -> None:
    done = train(
        "--multirun",
        "study=s",
        "+objective.others={num_parameters: minimize}",
        "hydra/sweeper/pruner=none",
        "hydra/sweeper/sampler=grid",
        "model.hidden=64,128",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    solutions = yaml.safe_load((tmp_path / "multirun/s/optimization_results.yaml").read_text())[
        "solutions"
    ]
    assert 1 <= len(solutions) <= 2

    done = train("--multirun", "study=seeds", "hydra.sweeper.seeds=2", "optim.lr=0.001,0.003",
                 "hydra/sweeper/sampler=grid", *SHORT)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for row in rows(tmp_path / "multirun/seeds"):
        values = [
            json.loads(
                (tmp_path / f"multirun/seeds/{row['number']}/seed_{i}/result.json").read_text()
            )["objective"]
            for i in range(2)
        ]
        assert float(row["value"]) == pytest.approx(sum(v["value"] for v in values) / 2, abs=1e-12)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "more"),
    [
        (0, []),
        (1, ["objective.others={val/loss: minimize}", "hydra.sweeper.prune_by=dominated"]),
    ],
)
def test_a_sweep_killed_again_and_again_equals_an_uninterrupted_one(
    train: Command, tmp_path: Path, seed: int, more: list[str]
) -> None:
    """SIGKILL to the controller, its worker or both, while real networks train."""
    overrides = ["hydra.launcher.n_jobs=1", "hydra.sweeper.n_trials=4", "hydra/sweeper/pruner=asha"]
    overrides += ["trainer.epochs=4", "trainer.threads=1", "tracking=none", *more]
    whole = train("--multirun", "study=whole", *overrides)
    assert whole.returncode == 0, whole.stderr[-3000:]
    dice = random.Random(seed)
    kills = 0
    command = [sys.executable, str(ROOT / "train.py"), "--multirun", "study=killed", *overrides]
    sweep_dir, output = tmp_path / "multirun/killed", tmp_path / "output.log"
    while True:
        with output.open("w") as file:
            process = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
        wanted = epochs_written(sweep_dir) + dice.randint(1, 3)
        while process.poll() is None:
            time.sleep(0.01)
            if kills < 5 and epochs_written(sweep_dir) >= wanted:
                kills += 1
                time.sleep(dice.random() * 0.2)
                kill_some(process.pid, dice)
                wanted = epochs_written(sweep_dir) + dice.randint(1, 3)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output.read_text()[-3000:]
    assert kills >= 3
    assert stored(tmp_path / "multirun/killed") == stored(tmp_path / "multirun/whole")
    best = (tmp_path / "multirun/whole/best").readlink()
    assert (tmp_path / "multirun/killed/best").readlink() == best
    assert_same_bytes(
        tmp_path / "multirun/whole" / best, tmp_path / "multirun/killed" / best, "best.pt"
    )
    assert_nothing_is_left(tmp_path)


def kill_some(pid: int, dice: random.Random) -> None:
    """Kill the controller, its worker, or both."""
    with contextlib.suppress(psutil.NoSuchProcess):
        controller = psutil.Process(pid)
        workers = controller.children(recursive=True)
        for victim in dice.choice([[controller], [controller, *workers], workers]):
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)


def epochs_written(sweep_dir: Path) -> int:
    return sum(
        path.read_text().count('"val/f1_macro"') for path in sweep_dir.glob("*/events.jsonl")
    )
