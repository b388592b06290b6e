"""Mistakes are one line, and odd but legal input trains."""

import json
import os
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from PIL import Image

from tests.conftest import QUICK, ROOT, CommandLine
from tests.errors import Mistake, document, read_mistakes
from tests.images import make_folder, make_image
from visionsweep.cli import train
from visionsweep.rundir.layout import CHECKPOINTS, CONFIG, JOURNAL, RESULT, SPLIT

ONE_EPOCH = [*QUICK, "trainer.epochs=1"]
FOLDER = ["data=image_folder", "data.on_bad_image=skip", "trainer.batch_size=8", "model.widths=[4]"]


@pytest.mark.parametrize("mistake", read_mistakes(), ids=lambda mistake: mistake.name)
def test_a_mistake_is_one_line(mistake: Mistake, tmp_path: Path, command_line: CommandLine) -> None:
    mistake.prepare(tmp_path)
    outcome = command_line(*ONE_EPOCH, *mistake.words())
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.text
    assert mistake.matches(errors[0].removeprefix("error: "), tmp_path), errors[0]
    assert outcome.code == 1
    assert "Traceback" not in outcome.text
    for result in tmp_path.glob(f"outputs/*/{RESULT}"):
        assert json.loads(result.read_text())["state"] == "failed"
        assert (result.parent / CHECKPOINTS).exists() is False


def test_the_documented_mistakes_are_these() -> None:
    """Otherwise run `make docs`."""
    assert (ROOT / "docs/errors.md").read_text(encoding="utf-8") == document()


def test_images_of_every_kind_train_and_odd_ones_are_named(
    tmp_path: Path, command_line: CommandLine
) -> None:
    photos = make_folder(tmp_path / "photos/train")
    for number, mode in enumerate(("P", "L", "LA", "RGBA", "CMYK", "1")):
        image = make_image(0, number).convert(mode)
        image.save(photos / "cat" / f"mode_{mode}.{'tif' if mode == 'CMYK' else 'png'}")
    Image.new("I;16", (12, 12), 40000).save(photos / "cat" / "mode_I16.png")
    truncated = photos / "dog" / "03.png"
    truncated.write_bytes(truncated.read_bytes()[:100])
    (photos / "yak").mkdir()  # a class without an image
    for index, name in enumerate(("cat", "dog")):  # none of the class fox
        (tmp_path / "photos/test" / name).mkdir(parents=True)
        make_image(index, 99).save(tmp_path / "photos/test" / name / "99.png")
    outcome = command_line(*ONE_EPOCH, *FOLDER, "data.root=photos", "name=first")
    assert outcome.code == 0, outcome.text
    for odd in ("dog/03.png", "yak", "fox"):
        assert odd in outcome.stdout
    run_dir = tmp_path / "outputs/first"
    rows = (run_dir / SPLIT).read_text().splitlines()[1:]
    assert len(rows) == 36 + 7 - 1 + 2
    assert any("mode_CMYK" in row for row in rows)
    # The test split is evaluated once, with the best checkpoint.
    result = json.loads((run_dir / RESULT).read_text())
    assert 0 <= result["test"]["test/f1_macro"] <= 1
    assert "test/f1_macro" in outcome.stdout
    records = [json.loads(line) for line in (run_dir / JOURNAL).read_text().splitlines()]
    metrics = [record["values"] for record in records if record["type"] == "metrics"]
    assert sum("test/f1_macro" in values for values in metrics) == 1


def test_a_path_needs_no_quotes(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_folder(tmp_path / "home/~my Füchse (old), 2/it's a=b\\c")
    path = "data.root=~/~my Füchse (old), 2/it's a=b\\c"
    outcome = command_line(*ONE_EPOCH, *FOLDER, path)
    assert outcome.code == 0, outcome.text


def test_two_augmentations_combine(tmp_path: Path, command_line: CommandLine) -> None:
    both = ["augment=[strong,mixup]", "trainer.accumulate=2", "model.widths=[4]", "name=both"]
    outcome = command_line(*ONE_EPOCH, *both)
    assert outcome.code == 0, outcome.text
    config = (tmp_path / "outputs/both" / CONFIG).read_text()
    assert "ColorJitter" in config
    assert "Mixup" in config
    assert "BatchNorm normalizes each micro-batch of 32" in outcome.stdout


def test_a_failed_run_resumes_only_with_the_same_config(
    tmp_path: Path, command_line: CommandLine
) -> None:
    assert command_line(*ONE_EPOCH, "name=first", "optim=sgd", "optim.lr=1e30").code == 1
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = command_line("resume=outputs/first", "loss=focal", "trainer.epochs=5")
    assert outcome.code == 1
    assert "trainer.epochs: 1 -> 5" in outcome.stderr
    assert "loss._target_: 'visionsweep.losses.cross_entropy.CrossEntropyLoss' -> " in outcome.text
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # Device, threads and tracking may differ.
    outcome = command_line("resume=outputs/first", "trainer.device=cpu", "tracking.experiment=b")
    assert "loss is nan at epoch 1" in outcome.stderr  # where it failed before


@pytest.mark.slow
def test_a_used_sweep_directory_is_refused_in_one_line(command_line: CommandLine) -> None:
    sweep = [*ONE_EPOCH, "--multirun", "study=s", "hydra/sweeper=basic", "seed=1"]
    assert command_line(*sweep).code == 0
    outcome = command_line(*sweep)
    assert outcome.code == 1
    assert outcome.stdout == ""


@pytest.mark.slow
def test_a_sweep_survives_a_failed_trial(tmp_path: Path, command_line: CommandLine) -> None:
    sweep = "--multirun study=s optim=sgd optim.lr=1e30,1e-2 loss=focal trainer.accumulate=1"
    outcome = command_line(*ONE_EPOCH, *sweep.split(), "hydra.sweeper.n_trials=5")
    assert outcome.code == 0, outcome.text
    results = tmp_path.glob(f"multirun/s/[0-9]*/{RESULT}")  # repeated configurations run once
    assert {json.loads(result.read_text())["state"] for result in results} == {"finished", "failed"}
    assert "best run: " in outcome.stdout


@pytest.mark.slow
def test_a_mistake_that_ends_a_sweep_is_one_line(command_line: CommandLine) -> None:
    sweep = "--multirun study=s hydra/sweeper=basic loss=focal +loss.gama=1,2"
    outcome = command_line(*ONE_EPOCH, *sweep.split())
    assert outcome.code == 1
    assert "error: loss.gama: FocalLoss takes gamma" in outcome.stderr


def test_hydra_full_error_keeps_hydras_traceback(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException, match="Could not find 'loss/focall'"):
        command_line("loss=focall")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_bug_keeps_its_traceback(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(cfg: object) -> float:
        raise ValueError("ours")

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(train, "run_experiment", bug)
    with pytest.raises(ValueError, match="ours"):
        command_line(*QUICK, "name=bug")
    assert "HYDRA_FULL_ERROR" not in os.environ
