"""A trained run predicts its own validation images from files, and reaches the metrics that training recorded."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, log_loss

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_predict_repeats_the_validation_of_training(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run(
        "train.py",
        "trainer.epochs=1",
        "trainer.threads=1",
        "tracking=none",
        f"hydra.run.dir={run_dir}",
    )
    metrics = json.loads((run_dir / "result.json").read_text())["metrics"]
    with (run_dir / "split.csv").open(newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream) if row["split"] == "val"]

    digits = load_digits()
    (tmp_path / "images").mkdir()
    for name in ids:
        pixels = np.rint(digits.images[int(name)] * 255 / 16).astype(np.uint8)  # grey levels 0..16
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    sample, out = tmp_path / "sample.csv", tmp_path / "out.csv"
    sample.write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in ids))
    where = (
        f"run={run_dir}",
        f"data.predict={tmp_path / 'images'}",
        f"sample={sample}",
        f"out={out}",
    )
    output = run("predict.py", *where, "probabilities=true", "labels=indices", "device=cpu")
    assert output.startswith(f"{len(ids):,} images (")

    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["ImageID"] for row in rows] == ids
    targets = digits.target[[int(name) for name in ids]]
    preds = np.array([int(row["ans"]) for row in rows])
    probabilities = np.array([[float(row[f"prob_{digit}"]) for digit in range(10)] for row in rows])
    assert accuracy_score(targets, preds) == pytest.approx(metrics["val/accuracy"], abs=1e-9)
    assert f1_score(targets, preds, average="macro") == pytest.approx(
        metrics["val/f1_macro"], abs=1e-9
    )
    # float32 rows need not sum to exactly one, which log_loss would warn of
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert log_loss(targets, probabilities) == pytest.approx(metrics["val/loss"], rel=1e-4)
