"""The command `predict` as a user runs it: exit codes, one line per mistake, the written file."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, log_loss

from tests.conftest import QUICK, CommandLine
from tests.predict.untrained_run import expected_probabilities, make_run
from visionsweep.data.decode import decode_image
from visionsweep.predict.command import main
from visionsweep.rundir.layout import RESULT, SPLIT
from visionsweep.training.predictor import load_predictor

NAMES = ("a b.png", "c,d.png", "사진.png", "(e).png", "f.png")
CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def job(
    tmp_path: Path, write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Arguments of a prediction that works, in a current directory with nothing else."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    write_images(tmp_path / "images", *NAMES)
    return ["run=run", "data.predict=images", "device=cpu"]


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def test_rows_on_stdout_come_alone(
    job: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*job, "out=/dev/stdout"]) == 0
    output = capfdbinary.readouterr()
    header, *rows = output.out.splitlines()
    assert header == b"id,label"
    assert len(rows) == len(NAMES)
    assert b"5 images (" in output.err


def test_a_folder(
    job: list[str], tmp_path: Path, pixels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.iterdir())
    assert main(job) == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "submission.csv"}
    preds = expected_probabilities(make_run(tmp_path / "run"), pixels).argmax(axis=1)
    assert len(set(preds)) > 1
    expected = {name: CLASSES[pred] for name, pred in zip(NAMES, preds, strict=True)}
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
    ids = list(reversed(NAMES))
    write(tmp_path / "s.csv", [["ImageID", "ans", "fold"], *([name, "", "kept"] for name in ids)])
    arguments = "run=[run,run2] sample=s.csv labels=indices probabilities=true tta=flip out=o.csv"
    assert main([*arguments.split(), *job[1:]]) == 0
    views = [pixels, pixels[..., ::-1]]
    expected = sum(expected_probabilities(m, view) for m in models for view in views)[::-1] / 4
    header, *rows = read(tmp_path / "o.csv")
    assert header == ["ImageID", "ans", "fold", "prob_cat", "prob_dog", "prob_owl"]
    assert [(row[0], row[2]) for row in rows] == [(name, "kept") for name in ids]
    probabilities = np.array([row[3:] for row in rows], dtype=float)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert [int(row[1]) for row in rows] == expected.argmax(axis=1).tolist()


def test_a_sample_with_one_column_per_class_gets_the_probabilities(
    job: list[str], tmp_path: Path, pixels: np.ndarray
) -> None:
    """The usual shape if the metric is log loss; the columns may be in another order."""
    write(tmp_path / "s.csv", [["ImageID", "owl", "cat", "dog"], *([n, 0, 0, 0] for n in NAMES)])
    assert main([*job, "sample=s.csv"]) == 0
    header, *rows = read(tmp_path / "submission.csv")
    assert header == ["ImageID", "owl", "cat", "dog"]
    assert [row[0] for row in rows] == list(NAMES)
    expected = expected_probabilities(make_run(tmp_path / "run"), pixels)[:, [2, 0, 1]]
    np.testing.assert_allclose(np.array([r[1:] for r in rows], dtype=float), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=x"], "run: given twice"),
        (["out=nowhere/x.csv"], "out: "),
        (["out=images"], "out: "),
        (["sample=s.csv", "out=s.csv"], "out: "),
        (["sample=s.csv"], "sample: data.predict has no image for 1 of 1 id of "),
        (["sample=wide.csv"], "label_column: the sample has the columns ImageID, P_cat, P_dog; "),
        (["device=gpu"], "device: "),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    job: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "s.csv").write_text("id,label\nnone.png,\n")
    write(tmp_path / "wide.csv", [["ImageID", "P_cat", "P_dog"], *([n, 0, 0] for n in NAMES)])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([*(job[:2] if "device=gpu" in arguments else job), *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {message}")
    assert output.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_corrupted_image_keeps_the_old_submission(
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


@pytest.mark.parametrize("source", ["damaged", "not listed", "no image for an id"])
@pytest.mark.parametrize("on_bad_image", ["skip", "fill", "repair"])
def test_a_bad_image_is_left_out_or_filled(
    source: str,
    on_bad_image: str,
    job: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same for a file that cannot be read and for one that is missing."""
    make_run(tmp_path / "run", class_counts=[1, 3, 2])
    image = tmp_path / "images" / "f.png"
    if source == "damaged":
        image.write_bytes(image.read_bytes()[:60])
    else:
        image.unlink()
        rows = [["file", "x"], *([name, ""] for name in NAMES)]
        write(tmp_path / "t.csv", rows)
    if source == "not listed":
        job = ["run=run", "data.predict=t.csv", "data.root=images", "device=cpu"]
    elif source == "no image for an id":
        job = [*job, "sample=t.csv", "id_column=file", "label_column=x"]
    assert main([*job, f"on_bad_image={on_bad_image}", "out=o.csv"]) == 0
    _, *rows = read(tmp_path / "o.csv")
    labels = dict(rows)
    assert set(labels) == (set(NAMES) - ({"f.png"} if on_bad_image == "skip" else set()))
    assert labels.get("f.png", "dog") == "dog"  # the most frequent class
    outcome = "left out" if on_bad_image == "skip" else "filled with the class frequencies"
    assert f"1 of 5 images {outcome}: f.png (" in capsys.readouterr().out
    assert main([*job, "out=o2.csv"]) == 1
    assert not (tmp_path / "o2.csv").exists()


def test_what_can_be_decoded_of_an_image_is_predicted(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run", class_counts=[1, 3, 2])
    image = tmp_path / "images" / "f.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    image.write_bytes(image.read_bytes()[:3000])
    assert main([*job, "on_bad_image=repair", "probabilities=true", "out=o.csv"]) == 0
    assert (
        "1 of 5 images predicted from what could be decoded: f.png (truncated)"
    ) in capsys.readouterr().out
    predictor = load_predictor(tmp_path / "run")
    pixels = decode_image(image, predictor.preprocessing, repair=True)
    expected = predictor(torch.from_numpy(pixels)[None]).tolist()[0]
    written = {row[0]: row[2:] for row in read(tmp_path / "o.csv")}["f.png"]
    np.testing.assert_allclose([float(cell) for cell in written], expected, rtol=1e-5)


def test_the_validation_images_as_files_reach_the_metrics_of_training(
    tmp_path: Path, command_line: CommandLine
) -> None:
    assert command_line(*QUICK, "trainer.epochs=1", "name=first").code == 0
    run_dir = tmp_path / "outputs/first"
    metrics = json.loads((run_dir / RESULT).read_text())["metrics"]
    with (run_dir / SPLIT).open(newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream) if row["split"] == "val"]
    digits = load_digits()
    (tmp_path / "images").mkdir()
    for name in ids:
        pixels = np.rint(digits.images[int(name)] * 255 / 16).astype(np.uint8)  # grey levels 0..16
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    write(tmp_path / "sample.csv", [["ImageID", "ans"], *([name, "0"] for name in ids)])
    arguments = "run=outputs/first data.predict=images sample=sample.csv out=out.csv"
    assert main([*arguments.split(), "probabilities=true", "labels=indices", "device=cpu"]) == 0
    _, *rows = read(tmp_path / "out.csv")
    assert [row[0] for row in rows] == ids
    targets = digits.target[[int(name) for name in ids]]
    preds, probabilities = [int(row[1]) for row in rows], np.array([r[2:] for r in rows], float)
    assert accuracy_score(targets, preds) == pytest.approx(metrics["val/accuracy"], abs=1e-9)
    f1_macro = f1_score(targets, preds, average="macro")
    assert f1_macro == pytest.approx(metrics["val/f1_macro"], abs=1e-9)
    # float32 rows need not sum to exactly one, which log_loss would warn of
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert log_loss(targets, probabilities) == pytest.approx(metrics["val/loss"], rel=1e-4)


def test_top_k_labels_are_separated_by_spaces(
    job: list[str], tmp_path: Path, pixels: np.ndarray
) -> None:
    assert main([*job, "top_k=2"]) == 0
    probabilities = expected_probabilities(make_run(tmp_path / "run"), pixels)
    order = np.argsort(-probabilities, axis=1)[:, :2]
    expected = {
        name: " ".join(CLASSES[k] for k in row) for name, row in zip(NAMES, order, strict=True)
    }
    _, *rows = read(tmp_path / "submission.csv")
    assert dict(rows) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("top_k=4", "top_k: expected at most 3, the classes, got 4"),
        ("decisions.test_prior=uniform", "decisions.test_prior=uniform: is read where decisions"),
        ("decisions=auto", "run holds no run; expected the directory of a run"),
    ],
)
def test_labels_that_cannot_be_decided(
    argument: str,
    message: str,
    job: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*job, argument]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not (tmp_path / "submission.csv").exists()


def test_labels_with_spaces_and_columns_of_classes_have_no_top_k(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "s.csv", [["ImageID", "owl", "cat", "dog"], *([n, 0, 0, 0] for n in NAMES)])
    assert main([*job, "sample=s.csv", "top_k=2"]) == 1
    assert "top_k: the sample has one column per class" in capsys.readouterr().err
    assert main([*job, "sample=s.csv", "decisions=auto"]) == 1
    assert "decisions=auto: is about labels, and the sample has" in capsys.readouterr().err
    make_run(tmp_path / "run", class_names=("hot dog", "cat", "owl"))
    assert main([*job, "top_k=2"]) == 1
    assert "and 'hot dog' has one; set labels=indices" in capsys.readouterr().err
    assert main([*job, "top_k=2", "labels=indices"]) == 0
