"""The product as people use it: runs, a sweep, MLflow, predictions, the README's commands."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, Command
from tests.images import make_csv, make_folder, make_image
from tests.mlflow_process import MlflowProcess
from tests.run.test_resume import assert_same_bytes
from visionsweep.rundir.layout import BEST, JOURNAL, LAST, RESULT, SPLIT

pytestmark = pytest.mark.slow

READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("visionsweep")
history = client.get_metric_history
def files(run, path=""):
    found = []
    for item in client.list_artifacts(run.info.run_id, path):
        found += files(run, item.path) if item.is_dir else [item.path]
    return found
def place(run):
    return run.data.tags["run_dir"].split("/outputs/")[-1].split("/multirun/")[-1]
runs = client.search_runs([experiment.experiment_id])
models = client.search_logged_models([experiment.experiment_id])
print(json.dumps({
    "runs": {
        place(run): {
            "name": run.info.run_name,
            "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
            "files": files(run), "last": run.data.metrics,
            "f1": [[m.step, m.value] for m in history(run.info.run_id, "val/f1_macro")],
        } for run in runs
    },
    "models": [[place(client.get_run(m.source_run_id)), m.model_uri] for m in models],
}))
"""


def read_mlflow(directory: Path) -> dict[str, Any]:
    uri = f"sqlite:///{directory}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", READ, uri],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    contents: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return contents


def journal_f1(run_dir: Path) -> list[list[float]]:
    records = map(json.loads, (run_dir / JOURNAL).read_text().splitlines())
    metrics = [r for r in records if r["type"] == "metrics"]
    return [
        [r["step"], r["values"]["val/f1_macro"]] for r in metrics if "val/f1_macro" in r["values"]
    ]


@pytest.mark.timeout(
    600
)  # the server's start and three commands, each of which imports torch or MLflow
def test_a_run_is_whole_in_mlflow_and_its_model_answers(tmp_path: Path, train: Command) -> None:
    done = train("loss=focal", "optim=adamp", "trainer.epochs=2", "name=first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MLflow: 0 records behind" in done.stdout
    assert "compare runs: mlflow ui --backend-store-uri sqlite:///mlflow.db" in done.stdout
    stored = read_mlflow(tmp_path)
    run = stored["runs"]["first"]
    assert run["status"] == "FINISHED"
    result = json.loads((tmp_path / "outputs/first" / RESULT).read_text())
    assert run["name"] == f"{result['objective']['value']:.3f} first focal adamp lr=0.003 epochs=2"
    assert run["params"]["loss"] == "focal"
    assert run["params"]["optim"] == "adamp"
    assert run["params"]["loss.gamma"] == "2.0"
    assert run["params"]["effective_batch_size"] == "32"
    assert run["f1"] == journal_f1(tmp_path / "outputs/first")
    assert {"train/loss", "val/loss", "val/accuracy", "train/lr", "train/images_per_second"} <= set(
        run["last"]
    )
    assert {f"val/f1_class/{digit}" for digit in range(10)} <= set(run["last"])
    pictures = {
        f"figures/{name}.png"
        for name in ("confusion_matrix", "curves", "pr_curves", "reliability", "mistakes")
    }
    assert {"config.yaml", "checkpoints/best.pt", "figures/per_class.csv", *pictures} <= set(
        run["files"]
    )
    # One file under two names: MLflow's copy of a checkpoint takes no room.
    assert (tmp_path / "outputs/first" / BEST).stat().st_nlink == 2
    assert run["last"]["best/f1_macro"] == result["objective"]["value"]
    assert run["last"]["final/f1_macro"] == run["f1"][-1][1]
    assert {"git.commit", "git.dirty", "command"} <= set(run["tags"])
    assert "loss=focal" in run["tags"]["command"]

    # The model answers raw images through MLflow's own server as predict.py does.
    (name, model_uri), *others = stored["models"]
    assert (name, others) == ("first", [])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    inputs = pixels[:, None].tolist()
    served = serve(
        tmp_path,
        f"sqlite:///{tmp_path}/mlflow.db",
        model_uri,
        [{"inputs": inputs}, {"inputs": inputs[:1]}],
    )

    done = train(
        "run=outputs/first",
        "data.predict=images",
        "out=out.csv",
        "probabilities=true",
        script="predict.py",
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    predicted = np.array([[float(row[f"prob_{digit}"]) for digit in range(10)] for row in rows])
    np.testing.assert_allclose(served[0], predicted, atol=1e-5)
    np.testing.assert_allclose(served[1], predicted[:1], atol=1e-5)  # any number of images


def serve(
    directory: Path, tracking_uri: str, model_uri: str, requests: list[dict[str, Any]]
) -> list[list[list[float]]]:
    """Start `mlflow models serve`, ask it, end it; return the predictions of each request."""
    command = ["models", "serve", "--model-uri", model_uri, "--env-manager", "local"]
    answers = []
    with MlflowProcess(
        directory, *command, environment={"MLFLOW_TRACKING_URI": tracking_uri}
    ) as server:
        for request in requests:
            headers = {"Content-Type": "application/json"}
            call = urllib.request.Request(
                f"{server.uri}/invocations", json.dumps(request).encode(), headers
            )
            with urllib.request.urlopen(call, timeout=60) as response:
                answers.append(json.load(response)["predictions"])
    return answers


def test_an_unreachable_server_costs_the_wait_and_names_what_sends_the_rest(
    tmp_path: Path, train: Command
) -> None:
    done = train(
        "trainer.epochs=1",
        "name=first",
        "tracking.uri=http://127.0.0.1:9",
        "tracking.wait_seconds=3",
    )
    assert done.returncode == 0, done.stderr
    assert "python sync.py" in done.stdout
    done = train(
        "outputs/first", "--uri", f"sqlite:///{tmp_path}/mlflow.db", "--verify", script="sync.py"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_mlflow(tmp_path)["runs"]["first"]["f1"] == journal_f1(tmp_path / "outputs/first")


def test_two_runs_started_together_on_a_fresh_database(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "trainer.epochs=1", "trainer.threads=1"]
    started = [[*command, f"name={name}"] for name in "ab"]
    both = [
        subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for words in started
    ]
    for process in both:
        out, _ = process.communicate(timeout=200)
        assert process.returncode == 0, out
    runs = read_mlflow(tmp_path)["runs"]
    assert {name: run["status"] for name, run in runs.items()} == {"a": "FINISHED", "b": "FINISHED"}


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").exists(),
    reason="needs the Debian package dataset-fashion-mnist",
)
def test_fashion_mnist_is_learned_and_tested_once(tmp_path: Path, train: Command) -> None:
    choices = "data=fashion_mnist loss=label_smoothing optim=adamw scheduler=cosine"
    quick = "tracking=none trainer.epochs=1 trainer.threads=1"
    done = train(*choices.split(), *quick.split(), "name=first")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "outputs/first" / RESULT).read_text())
    # One epoch of five: below the README's figure, far above what a broken pipeline could reach.
    assert result["test"]["test/f1_macro"] > 0.83
    assert abs(result["test"]["test/f1_macro"] - result["metrics"]["val/f1_macro"]) < 0.04
    rows = (tmp_path / "outputs/first" / SPLIT).read_text().splitlines()[1:]
    counts = {
        part: sum(row.startswith(part + ",") for row in rows) for part in ("train", "val", "test")
    }
    assert counts == {"train": 48000, "val": 12000, "test": 10000}


def test_the_default_sweep_searches_and_exports_its_best_model_once(
    tmp_path: Path, train: Command
) -> None:
    done = train(
        "--multirun",
        "study=faces",
        "hydra.sweeper.n_trials=4",
        "trainer.epochs=1",
        "trainer.threads=1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [
        json.loads((tmp_path / f"multirun/faces/{n}" / RESULT).read_text()) for n in range(4)
    ]
    values = [result["objective"]["value"] for result in results]
    best = values.index(max(values))
    assert f"best val/f1_macro {max(values):.4f}, trial {best}: " in done.stdout
    assert "on new images expect val/f1_macro " in done.stdout
    assert f"best run: multirun/faces/{best}" in done.stdout
    stored = read_mlflow(tmp_path)
    assert {f"faces/{n}" for n in range(4)} < set(stored["runs"])
    assert len({stored["runs"][f"faces/{n}"]["params"]["optim.lr"] for n in range(4)}) == 4
    assert all(
        1e-4 <= float(stored["runs"][f"faces/{n}"]["params"]["optim.lr"]) <= 1e-1 for n in range(4)
    )
    assert [name for name, _ in stored["models"]] == [f"faces/{best}"]
    parent = stored["runs"]["faces"]
    assert parent["status"] == "FINISHED"
    assert parent["last"]["best/f1_macro"] == max(values)
    assert parent["last"]["trials/complete"] == 4
    assert parent["tags"]["best.trial"] == str(best)
    assert f"\\#{best} won" in parent["tags"]["mlflow.note.content"]
    assert {"report.html", "leaderboard.json", "trials.csv", "sweep.yaml"} <= set(parent["files"])
    winners = [name for name, run in stored["runs"].items() if "visionsweep.winner" in run["tags"]]
    assert winners == [f"faces/{best}"]
    # The sampler is seeded: the same command searches the same way. What comes first is at most a
    # third of the trials: here too, one.
    train(
        "--multirun",
        "study=again",
        "hydra.sweeper.n_trials=3",
        "trainer.epochs=1",
        "trainer.threads=1",
        "tracking=none",
    )
    again = [json.loads((tmp_path / f"multirun/again/{n}" / RESULT).read_text()) for n in range(3)]
    assert [r["objective"]["value"] for r in again] == values[:3]
    # A study that is complete runs nothing again, and another sweeper does not overwrite it.
    done = train("--multirun", "study=faces")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name, _ in read_mlflow(tmp_path)["models"]] == [f"faces/{best}"]
    done = train("--multirun", "study=faces", "hydra/sweeper=basic", "seed=1,2")
    assert done.returncode == 1
    assert "multirun/faces is never overwritten" in done.stderr


@pytest.mark.timeout(600)  # three commands, on a busy machine
def test_a_trial_of_a_sweep_resumes_like_any_run(tmp_path: Path, train: Command) -> None:
    overrides = ["tracking=none", "trainer.epochs=60", "trainer.threads=1", "optim=adamp"]
    grid = ["hydra/sweeper=basic", "hydra/launcher=basic", "loss=focal,ce_f1"]
    done = train("--multirun", "study=whole", *grid, *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--multirun",
        "study=killed",
        *grid,
        *overrides,
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    journal = tmp_path / "multirun/killed/1" / JOURNAL
    deadline = time.monotonic() + 200
    while not (journal.exists() and journal.read_text().count('"metrics"') >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls another process
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = train("resume=multirun/killed/1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_bytes(
        tmp_path / "multirun/whole/1", tmp_path / "multirun/killed/1", Path(LAST).name
    )


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    verbs = ("train", "predict", "compare", "ensemble", "report")
    starts = ("python train.py", "python predict.py", *(f"visionsweep {verb} " for verb in verbs))
    commands = [line for line in lines if line.startswith(starts)]
    return [_faster(command) for command in commands]


def _faster(command: str) -> str:
    """Return a command with other settings if it takes minutes as it stands."""
    command = command.replace("budget_minutes=30", "budget_minutes=1")
    if "confirm=" in command:
        return f"{command} hydra.sweeper.confirm_top=1 hydra.sweeper.seeds=3"
    if "folds=5" in command:
        return f"{command} hydra.sweeper.n_trials=3 trainer.epochs=1"
    return f"{command} trainer.epochs=2" if "--multirun" in command else command


@pytest.mark.timeout(1500)
def test_every_command_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_folder(tmp_path / "photos", per_class=16)
    make_csv(tmp_path, per_class=16)
    import timm  # takes seconds

    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "lite0.pth")
    (tmp_path / "test_images").mkdir()
    for number in range(4):
        make_image(number % 3, 100 + number).save(tmp_path / "test_images" / f"{number}.png")
    (tmp_path / "sample_submission.csv").write_text(
        "ImageID,ans\n3.png,x\n1.png,x\n0.png,x\n2.png,x\n"
    )
    commands = readme_commands()
    assert len(commands) >= 8
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        commands = [command for command in commands if "fashion_mnist" not in command]
    # For `resume=` and `predict.py`: runs of the names that the README uses.
    for name in ("NAME", "a", "b"):
        photos = "data=image_folder data.root=photos data.image_size=16"
        quick = f"name={name} tracking=none trainer.epochs=2"
        run_readme(f"python train.py {photos} {quick}", tmp_path)
    samples = 0
    for command in commands:
        run_readme(command, tmp_path)
        if "sample=" in command:
            samples += 1
            with (tmp_path / "submission.csv").open() as stream:
                rows = list(csv.DictReader(stream))
            assert [row["ImageID"] for row in rows] == ["3.png", "1.png", "0.png", "2.png"]
    assert samples


def run_readme(command: str, directory: Path) -> None:
    words = [os.path.expanduser(word) for word in shlex.split(command)]
    program = [str(ROOT / words[1])] if words[0] == "python" else ["-m", *words[:2]]
    script = [sys.executable, *program, *words[2:]]
    done = subprocess.run(
        script, cwd=directory, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, command + "\n" + done.stdout[-2000:] + done.stderr[-2000:]
