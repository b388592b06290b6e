"""The command as a user runs it: exit codes, one line, the written file."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.predict.untrained_run import expected_probabilities, make_run
from visionsweep.predict.command import main

SCRIPT = Path(__file__).parents[2] / "predict.py"
NAMES = ("a b.png", "c,d.png", "사진.png", "(e).png", "f.png")


@pytest.fixture
def job(
    tmp_path: Path, write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Arguments of a prediction that works; the current directory is empty but for them."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    write_images(tmp_path / "images", *NAMES)
    return ["run=run", "data.predict=images", "device=cpu"]


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_a_folder(
    job: list[str], tmp_path: Path, pixels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.iterdir())
    assert main(job) == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "submission.csv"}  # and no directory
    preds = expected_probabilities(make_run(tmp_path / "run"), pixels).argmax(axis=1)
    assert len(set(preds)) > 1
    expected = {name: ["cat", "dog", "owl"][pred] for name, pred in zip(NAMES, preds, strict=True)}
    header, *rows = read(tmp_path / "submission.csv")
    assert header == ["id", "label"]
    assert rows == [[name, expected[name]] for name in sorted(NAMES)]
    output = capsys.readouterr()
    assert output.out.startswith("5 images (")
    assert output.out.endswith("wrote submission.csv\n")
    assert output.err == ""


def test_a_sample_indices_probabilities_and_two_runs(
    job: list[str], tmp_path: Path, pixels: np.ndarray
) -> None:
    models = [make_run(tmp_path / name, seed=seed) for seed, name in enumerate(("run", "run2"))]
    rows = [[name, "", "kept"] for name in reversed(NAMES)]
    with (tmp_path / "s.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["ImageID", "ans", "fold"], *rows])
    arguments = [
        "run=[run,run2]",
        "sample=s.csv",
        "labels=indices",
        "probabilities=true",
        "tta=flip",
        "out=o.csv",
    ]
    assert main([*arguments, *job[1:]]) == 0
    views = [pixels, pixels[..., ::-1]]
    expected = (
        sum(expected_probabilities(model, view) for model in models for view in views)[::-1] / 4
    )
    header, *written = read(tmp_path / "o.csv")
    assert header == ["ImageID", "ans", "fold", "prob_cat", "prob_dog", "prob_owl"]
    assert [row[0] for row in written] == list(reversed(NAMES))
    assert [row[2] for row in written] == ["kept"] * 5
    np.testing.assert_allclose(
        np.array([row[3:] for row in written], dtype=float), expected, atol=1e-6
    )
    assert [int(row[1]) for row in written] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["datta.predict=x"], "datta.predict: unknown; did you mean data.predict?"),
        (["out=nowhere/x.csv"], "out: "),
        (["out=images"], "out: "),
        (["sample=s.csv", "out=s.csv"], "out: "),
        (["sample=s.csv"], "sample: 1 of 1 ids"),
        (["device=gpu"], "device: "),
        (["probabilities=maybe"], "probabilities: expected true or false"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    job: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample = tmp_path / "s.csv"
    sample.write_text("id,label\nnone.png,\n")
    if "device=gpu" in arguments:
        job = job[:2]
    before = set(tmp_path.rglob("*"))
    assert main([*job, *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {message}")
    assert output.err.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before
    assert sample.read_text() == "id,label\nnone.png,\n"


def test_a_corrupted_image_leaves_the_old_submission(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "submission.csv").write_text("old")
    (tmp_path / "images" / "f.png").write_bytes(b"\x89PNG")
    assert main(job) == 1
    error = capsys.readouterr().err
    assert "f.png" in error
    assert "1 of 5 images" in error
    assert error.count("\n") == 1
    assert (tmp_path / "submission.csv").read_text() == "old"


def test_help_imports_no_torch() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['predict.py', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "data.predict" in result.stdout


def test_the_script_ends_with_the_code_of_the_command() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "run=x"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: data.predict: not set")
    assert "Traceback" not in result.stderr


def test_a_sample_with_one_column_a_class_gets_the_probabilities(
    job: list[str], tmp_path: Path
) -> None:
    """The usual shape where log loss is the metric; the columns may stand in another order than the classes."""
    assert main([*job, "out=plain.csv", "probabilities=true"]) == 0
    with (tmp_path / "plain.csv").open() as stream:
        plain = {row["id"]: row for row in csv.DictReader(stream)}
    with (tmp_path / "sample.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["ImageID", "owl", "cat", "dog"], *([name, 0, 0, 0] for name in reversed(list(plain)))]
        )
    assert main([*job, "sample=sample.csv", "out=wide.csv"]) == 0
    with (tmp_path / "wide.csv").open() as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert reader.fieldnames == ["ImageID", "owl", "cat", "dog"]
    assert [row["ImageID"] for row in rows] == list(reversed(list(plain)))
    for row in rows:
        expected = plain[row["ImageID"]]
        assert {name: row[name] for name in ("cat", "dog", "owl")} == {
            name: expected[f"prob_{name}"] for name in ("cat", "dog", "owl")
        }


def test_a_sample_of_more_columns_must_say_which_holds_the_label(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sample.csv").write_text("ImageID,P_cat,P_dog\nx.png,0,0\n")
    images = tmp_path / "one"
    images.mkdir()
    Image.new("RGB", (10, 8)).save(images / "x.png")
    arguments = [a for a in job if not a.startswith("data.predict=")]
    assert main([*arguments, "data.predict=one", "sample=sample.csv"]) == 1
    assert capsys.readouterr().err.startswith("error: label_column: ")
