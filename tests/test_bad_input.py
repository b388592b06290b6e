"""The mistakes that people make, and the one line that they see. docs/errors.md shows the same list."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from PIL import Image

from tests.conftest import QUICK, ROOT, CommandLine
from tests.images import make_csv, make_folder, make_image
from visionsweep import cli

BATCH = "trainer.batch_size=8"  # the generated folders hold some thirty images
Prepare = Callable[[Path], object]


def nothing(root: Path) -> None:
    """Leave the directory empty."""


def empty_folder(root: Path) -> None:
    (root / "photos").mkdir()


def file_for_folder(root: Path) -> None:
    (root / "outputs").write_text("")


def photos(root: Path) -> None:
    make_folder(root / "photos")


def truncated_image(root: Path) -> None:
    path = make_folder(root / "photos") / "dog" / "03.png"
    path.write_bytes(path.read_bytes()[:100])


def shared_test_file(root: Path) -> None:
    make_folder(root / "photos" / "train")
    make_folder(root / "photos" / "test")


def table(root: Path) -> None:
    make_csv(root)


def table_without_file(root: Path) -> None:
    make_csv(root)
    (root / "images/dog/05.png").unlink()


def used_directory(root: Path) -> None:
    (root / "outputs/first/checkpoints").mkdir(parents=True)
    (root / "outputs/first/events.jsonl").touch()


CSV = ["data=csv", "data.path=train.csv"]

# name: (what lies in the directory, arguments, the line)
MISTAKES: dict[str, tuple[Prepare, list[str], str]] = {
    "misspelt choice": (
        nothing,
        ["loss=focall"],
        "In 'config': Could not find 'loss/focall'; did you mean focal? choose one of asymmetric, ce_f1, ",
    ),
    "misspelt group": (nothing, ["losss=focal"], "losss: no such key; did you mean loss? ("),
    "misspelt key": (nothing, ["optim.lrr=1"], "optim.lrr: no such key; did you mean optim.lr? ("),
    "unknown key": (
        nothing,
        ["loss=poly", "loss.smoothing=0.1"],
        "loss.smoothing: no such key; loss has epsilon, class_weights, beta (a new key is added with +loss.smoothing",
    ),
    "key without its group": (
        nothing,
        ["epochs=2"],
        "epochs: no such key; did you mean trainer.epochs? (a new key is added with +epochs=2)",
    ),
    "group set to null": (
        nothing,
        ["loss=null"],
        "loss=null: expected the name of an option of this config group",
    ),
    "text for a number": (
        nothing,
        ["trainer.epochs=many"],
        "trainer.epochs=many: Value 'many' of type 'str' could not be converted to Integer",
    ),
    "no such precision": (
        nothing,
        ["trainer.precision=fp8"],
        "trainer.precision=fp8: Invalid value 'fp8', expected one of ['auto', 'fp32', 'bf16', 'fp16']",
    ),
    "two values without --multirun": (
        nothing,
        ["loss=focal,f1"],
        "Ambiguous value for argument 'loss=focal,f1'; ",
    ),
    "bad quoting": (
        nothing,
        ["optim.lr=1=2"],
        "optim.lr=1=2: not an override that Hydra understands: mismatched input '=' expecting <EOF>; quote the value",
    ),
    "value of a wrong type": (nothing, ["optim.lr=1e-3x"], "optim.lr: expected a number"),
    "unknown key, added": (
        nothing,
        ["loss=focal", "+loss.gama=3"],
        "loss.gama: FocalLoss takes gamma, class_weights, beta",
    ),
    "misspelt class weights": (nothing, ["loss.class_weights=balancd"], "loss.class_weights: "),
    "too few class weights": (nothing, ["loss.class_weights=[1,2]"], "loss.class_weights: "),
    "foreign target": (
        nothing,
        ["loss._target_=os.system"],
        "loss._target_: 'os.system' is not allowed",
    ),
    "interpolation to nothing": (
        nothing,
        ["optim.lr=${nope}"],
        "optim.lr: Interpolation key 'nope' not found",
    ),
    "no accumulation": (
        nothing,
        ["trainer.accumulate=0"],
        "trainer.accumulate: expected a whole number from 1 up",
    ),
    "negative clip norm": (
        nothing,
        ["trainer.clip_norm=-1"],
        "trainer.clip_norm: expected a positive number",
    ),
    "ema of one": (nothing, ["trainer.ema=1.0"], "trainer.ema: expected a decay in (0, 1)"),
    "no patience": (
        nothing,
        ["trainer.early_stopping.patience=0"],
        "trainer.early_stopping.patience: expected epochs",
    ),
    "unknown device": (
        nothing,
        ["trainer.device=gpu"],
        "trainer.device: expected auto, cpu, cuda, cuda:N or mps",
    ),
    "device that is not there": (
        nothing,
        ["trainer.device=cuda:7"],
        "trainer.device: 'cuda:7' is not on this machine",
    ),
    "no threads": (nothing, ["trainer.threads=0"], "trainer.threads: expected a number from 1 up"),
    "unknown metric": (
        nothing,
        ["objective.metric=val/f1"],
        "objective.metric: no metric 'val/f1'",
    ),
    "test split as objective": (
        nothing,
        ["objective.metric=test/f1_macro"],
        "objective.metric: no metric 'test/f1_macro'; the test split is never an objective",
    ),
    "wrong direction": (
        nothing,
        ["objective.metric=val/loss"],
        "objective.direction: val/loss is to minimize, got maximize",
    ),
    "batch larger than the data": (
        nothing,
        ["trainer.batch_size=2000"],
        "trainer.batch_size: 2000 is more than the 1,438 training images of digits",
    ),
    "empty validation": (nothing, ["split.val_fraction=0"], "split.val_fraction: "),
    "no such fold": (nothing, ["split.fold=5"], "split.fold: "),
    "warm-up longer than the run": (
        nothing,
        ["scheduler=cosine", "scheduler.warmup_epochs=9"],
        "scheduler.warmup_epochs: ",
    ),
    "misspelt timm model": (
        nothing,
        ["model=timm", "model.name=resnt18"],
        "model.name: timm has no model 'resnt18'; did you mean resnet18",
    ),
    "missing weights": (
        nothing,
        ["model=timm", "model.pretrained=weights.pth"],
        "model.pretrained: ",
    ),
    "impossible probability": (
        nothing,
        ["augment=basic", "data.flips=true", "augment.steps.flip.probability=2"],
        "augment: Flip.probability: expected a number in 0..1, got 2",
    ),
    "refused by the library": (
        nothing,
        ["optim=sgd", "optim.momentum=0"],
        "optim: SGD refuses these settings (",
    ),
    "a mapping for a number": (
        nothing,
        ["optim.lr={a: 1}"],
        "optim.lr: expected a number, got {{'a': 1}}",
    ),
    "seed out of range": (
        nothing,
        ["seed=-1"],
        "seed: expected a whole number from 0 up to 2^63, got -1",
    ),
    "images too small for the model": (
        nothing,
        ["model=timm", "model.name=inception_v3"],
        "model: cannot train on 31 images of 8x8 pixels at once (",
    ),
    "one image at once for BatchNorm": (
        nothing,
        ["trainer.batch_size=1"],
        "model: cannot train on 1 images of 8x8 pixels at once (",
    ),
    "no data folder": (
        nothing,
        ["data=image_folder", "data.root=photos"],
        "data.root: {tmp}/photos does not exist (current directory: {tmp}). Set data.root, or use data=digits",
    ),
    "data folder not set": (
        nothing,
        ["data=image_folder"],
        "data.root is not set: set data.root to the folder",
    ),
    "data folder without images": (
        empty_folder,
        ["data=image_folder", "data.root=photos"],
        "data.root: ",
    ),
    "corrupted image": (
        truncated_image,
        ["data=image_folder", "data.root=photos"],
        "cannot read {tmp}/photos/dog/03.png (",
    ),
    "test file among the training files": (
        shared_test_file,
        ["data=image_folder", "data.root=photos"],
        "data.root: 36 ",
    ),
    "no CSV file": (nothing, [*CSV, "data.label=class"], "data.path: "),
    "no label column": (table, CSV, "data.label is not set: give the name of the column"),
    "misspelt column": (
        table,
        [*CSV, "data.label=clas"],
        "data.label=clas: {tmp}/train.csv has no such column. Set data.label to one of its columns",
    ),
    "misspelt group column": (
        table,
        [*CSV, "data.label=class", "data.group=persn"],
        "data.group=persn: {tmp}/train.csv has no such column. Set data.group to one of its columns",
    ),
    "missing image": (
        table_without_file,
        [*CSV, "data.label=class"],
        "{tmp}/train.csv line 19: {tmp}/images/dog/05.png does not exist",
    ),
    "label out of range": (
        table,
        [*CSV, "data.label=class", "data.classes=[cat,dog]"],
        "label fox in {tmp}/train.csv line 26 is not among data.classes (cat, dog)",
    ),
    "loss that explodes": (
        nothing,
        ["optim=sgd", "optim.lr=1e30"],
        "loss is nan at epoch 1, step ",
    ),
    "name that leaves the folder": (nothing, ["name=a/../../b"], "name: expected letters, digits"),
    "used directory": (
        used_directory,
        ["name=first"],
        "{tmp}/outputs/first is never overwritten: it holds a run already; go on with `python train.py "
        "resume=outputs/first`, or choose another name",
    ),
    "folder that cannot be made": (
        file_for_folder,
        ["name=first"],
        "{tmp}/outputs/first: cannot be made (Not a directory); start the command where you may write, or give "
        "hydra.run.dir=DIR",
    ),
    "no learning rate": (
        nothing,
        ["optim.lr=0"],
        "optim.lr: expected a finite number > 0, got 0.0",
    ),
    "sweep without --multirun": (
        nothing,
        ["sweep=default"],
        "sweep=default: belongs to a sweep; add --multirun",
    ),
    "study without --multirun": (
        nothing,
        ["study=faces"],
        "study=faces: belongs to a sweep; add --multirun",
    ),
    "name for a sweep": (
        nothing,
        ["--multirun", "name=x"],
        "name=x: belongs to a single run; a sweep is named with study=",
    ),
    "resume of nothing": (nothing, ["resume=outputs/nope"], "resume: outputs/nope does not exist"),
    "resume of a folder that is no run": (photos, ["resume=photos"], "resume: photos holds no run"),
    "sweep in the other direction": (
        nothing,
        ["--multirun", "hydra.sweeper.direction=minimize", "study=s"],
        "hydra.sweeper.direction: the objective is to maximize, got minimize",
    ),
    "tracking into a folder": (
        nothing,
        ["tracking=mlflow", "tracking.uri=./mlruns"],
        "tracking.uri: ",
    ),
}


@pytest.mark.parametrize(("prepare", "arguments", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(
    prepare: Prepare, arguments: list[str], line: str, tmp_path: Path, command_line: CommandLine
) -> None:
    prepare(tmp_path)
    outcome = command_line(*QUICK, *arguments)
    errors = [text for text in outcome.stderr.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1, outcome.text
    assert errors[0].startswith("error: " + line.format(tmp=tmp_path)), outcome.text
    assert outcome.code == 1
    assert "Traceback" not in outcome.text
    for result in tmp_path.glob("outputs/*/result.json"):
        assert json.loads(result.read_text())["state"] == "failed"
        assert (result.parent / "checkpoints").exists() is False


def test_bad_images_can_be_skipped_and_are_counted(
    tmp_path: Path, command_line: CommandLine
) -> None:
    truncated_image(tmp_path)
    outcome = command_line(
        *QUICK,
        "data=image_folder",
        "data.root=photos",
        "data.on_bad_image=skip",
        BATCH,
        "name=skip",
    )
    assert outcome.code == 0, outcome.text
    assert "dog/03.png" in outcome.stdout
    rows = (tmp_path / "outputs/skip/split.csv").read_text().splitlines()[1:]
    assert len(rows) == 35


def test_an_empty_class_is_a_warning_with_its_name(
    tmp_path: Path, command_line: CommandLine
) -> None:
    make_folder(tmp_path / "photos")
    (tmp_path / "photos" / "yak").mkdir()
    outcome = command_line(*QUICK, "data=image_folder", "data.root=photos", BATCH)
    assert outcome.code == 0, outcome.text
    assert "yak" in outcome.stdout


def test_every_image_mode_trains(tmp_path: Path, command_line: CommandLine) -> None:
    folder = make_folder(tmp_path / "photos")
    for number, mode in enumerate(("P", "L", "LA", "RGBA", "CMYK", "1")):
        image = make_image(0, number).convert(mode)
        image.save(folder / "cat" / f"mode_{mode}.{'tif' if mode == 'CMYK' else 'png'}")
    Image.new("I;16", (12, 12), 40000).save(folder / "cat" / "mode_I16.png")
    outcome = command_line(*QUICK, "data=image_folder", "data.root=photos", BATCH, "name=modes")
    assert outcome.code == 0, outcome.text
    assert "mode_CMYK" in (tmp_path / "outputs/modes/split.csv").read_text()


@pytest.mark.parametrize(
    "name", ["my photos (old), 2", "~photos", "Füchse", "it's", "a=b", "back\\slash"]
)
def test_paths_that_hydra_refuses_are_quoted(
    name: str, tmp_path: Path, command_line: CommandLine
) -> None:
    make_folder(tmp_path / name)
    argument = f"data.root=./{name}" if name.startswith("~") else f"data.root={name}"
    outcome = command_line(*QUICK, "data=image_folder", argument, BATCH, "name=quoted")
    assert outcome.code == 0, outcome.text


def test_the_home_directory_is_expanded(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(make_folder(tmp_path / "home" / "photos").parent))
    outcome = command_line(*QUICK, "data=image_folder", "data.root=~/photos", BATCH, "name=home")
    assert outcome.code == 0, outcome.text


def test_two_augmentations_go_together(tmp_path: Path, command_line: CommandLine) -> None:
    outcome = command_line(*QUICK, "augment=[strong,mixup]", "name=both", "trainer.accumulate=2")
    assert outcome.code == 0, outcome.text
    config = (tmp_path / "outputs/both/config.yaml").read_text()
    assert "ColorJitter" in config
    assert "Mixup" in config
    assert "BatchNorm normalizes each micro-batch of 32 by itself" in outcome.stdout


@pytest.mark.slow
def test_a_refused_sweep_prints_nothing_but_its_line(
    tmp_path: Path, command_line: CommandLine
) -> None:
    assert command_line(*QUICK, "--multirun", "study=s", "hydra/sweeper=basic", "seed=1").code == 0
    outcome = command_line(*QUICK, "--multirun", "study=s", "hydra/sweeper=basic", "seed=1")
    assert outcome.code == 1
    assert outcome.stdout == ""


def test_a_class_without_test_images_is_a_warning(
    tmp_path: Path, command_line: CommandLine
) -> None:
    """Archives keep no empty folders."""
    make_folder(tmp_path / "photos/train")
    for name, index in (("cat", 0), ("dog", 1)):
        (tmp_path / "photos/test" / name).mkdir(parents=True)
        make_image(index, 99).save(tmp_path / "photos/test" / name / "99.png")
    outcome = command_line(*QUICK, "data=image_folder", "data.root=photos", BATCH)
    assert outcome.code == 0, outcome.text
    assert "fox" in outcome.stdout


def test_what_a_failed_start_left_is_no_used_directory(
    tmp_path: Path, command_line: CommandLine
) -> None:
    (tmp_path / "outputs/first").mkdir(parents=True)
    (tmp_path / "outputs/first/split.csv").touch()
    assert command_line(*QUICK, "name=first").code == 0


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_trial(tmp_path: Path, command_line: CommandLine) -> None:
    sweep = [
        "--multirun",
        "study=s",
        "optim=sgd",
        "optim.lr=1e30,1e-2",
        "loss=focal",
        "trainer.accumulate=1",
    ]
    outcome = command_line(*QUICK, *sweep, "hydra.sweeper.n_trials=5")
    assert outcome.code == 0, outcome.text
    results = tmp_path.glob("multirun/s/[0-9]*/result.json")  # a repeated configuration is run once
    assert {json.loads(result.read_text())["state"] for result in results} == {"finished", "failed"}
    assert "best run: " in outcome.stdout


@pytest.mark.slow
def test_a_sweep_that_a_mistake_ends_says_it_in_one_line(command_line: CommandLine) -> None:
    outcome = command_line(
        *QUICK, "--multirun", "study=s", "hydra/sweeper=basic", "loss=focal", "+loss.gama=1,2"
    )
    assert outcome.code == 1
    assert "error: loss.gama: FocalLoss takes gamma" in outcome.stderr


class TestResume:
    def start(self, command_line: CommandLine) -> None:
        outcome = command_line(
            *QUICK, "name=first", "optim=sgd", "optim.lr=1e30"
        )  # fails in its first epoch
        assert outcome.code == 1

    def test_another_setting_is_shown_and_refused(
        self, tmp_path: Path, command_line: CommandLine
    ) -> None:
        self.start(command_line)
        before = {
            path: path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file()
        }
        outcome = command_line("resume=outputs/first", "loss=focal", "trainer.epochs=5")
        assert outcome.code == 1
        assert "trainer.epochs: 2 -> 5" in outcome.stderr
        assert (
            "loss._target_: 'visionsweep.losses.cross_entropy.CrossEntropyLoss' -> "
            in outcome.stderr
        )
        assert {
            path: path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file()
        } == before

    def test_device_threads_and_tracking_may_differ(self, command_line: CommandLine) -> None:
        self.start(command_line)
        outcome = command_line(
            "resume=outputs/first", "trainer.device=cpu", "tracking.experiment=other"
        )
        assert "loss is nan at epoch 1" in outcome.stderr  # it went on, to where it failed

    def test_a_finished_run_says_so(self, command_line: CommandLine) -> None:
        command_line(*QUICK, "name=first")
        outcome = command_line("resume=outputs/first")
        assert outcome.code == 0
        assert "outputs/first is finished already" in outcome.stdout


def test_the_documented_table_is_this_list() -> None:
    """docs/errors.md has a row for every mistake above."""
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert set(MISTAKES) <= rows


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
    monkeypatch.setattr(cli, "run_experiment", bug)
    with pytest.raises(ValueError, match="ours"):
        command_line(*QUICK, "name=bug")
    assert "HYDRA_FULL_ERROR" not in os.environ
