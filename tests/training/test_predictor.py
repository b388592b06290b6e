"""A predictor from the directory of a run: probabilities, export, errors."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.predict.conftest import pixels as pixels
from tests.predict.untrained_run import MODEL, expected_probabilities, make_run
from visionsweep.data.dataset import Preprocessing
from visionsweep.errors import UserError
from visionsweep.rundir.layout import BEST, JOURNAL
from visionsweep.rundir.result import write_result
from visionsweep.training import checkpoint
from visionsweep.training.predictor import load_predictor


def test_probabilities_of_raw_images(tmp_path: Path, pixels: np.ndarray) -> None:
    model = make_run(tmp_path)
    predictor = load_predictor(tmp_path)
    with torch.inference_mode():
        probabilities = predictor(torch.from_numpy(pixels))
    assert probabilities.dtype == torch.float32
    np.testing.assert_allclose(
        probabilities.numpy(), expected_probabilities(model, pixels), atol=1e-6
    )


def test_class_names_and_preprocessing_come_from_the_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, flips=False)
    predictor = load_predictor(tmp_path)
    assert predictor.class_names == ["cat", "dog", "owl"]
    # An older checkpoint: nothing was stored of the rest.
    assert predictor.preprocessing == Preprocessing((8, 10), 3, fit="stretch", levels=None)
    assert predictor.image_shape == (3, 8, 10)
    assert predictor.flips is False
    assert not predictor.training
    assert not any(module.training for module in predictor.modules())


def test_export_takes_any_number_of_images(tmp_path: Path, pixels: np.ndarray) -> None:
    predictor = load_predictor(make_directory(tmp_path))
    images = torch.from_numpy(pixels)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(predictor, (images[:2],), dynamic_shapes=shapes)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), predictor(images))
        torch.testing.assert_close(program.module()(images[:1]), predictor(images[:1]))


def make_directory(directory: Path) -> Path:
    make_run(directory)
    return directory


def test_pretrained_weights_are_not_loaded(tmp_path: Path, pixels: np.ndarray) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", num_classes=2, in_chans=3)
    run_dir = make_directory(tmp_path)
    path = run_dir / "checkpoints" / "best.pt"
    contents = checkpoint.load(path)
    contents["inference"]["class_names"] = ["a", "b"]
    checkpoint.save({**contents, "model": model.state_dict()}, path)
    (run_dir / "config.yaml").write_text(
        "model: {_target_: visionsweep.models.timm.create_model, name: test_resnet, "
        "pretrained: /weights/gone.pt}"
    )
    probabilities = load_predictor(run_dir)(torch.from_numpy(pixels)).detach().numpy()
    np.testing.assert_allclose(
        probabilities, expected_probabilities(model.eval(), pixels), atol=1e-6
    )


def damage(run_dir: Path, what: str) -> None:
    path = run_dir / "checkpoints" / "best.pt"
    if what == "directory":
        shutil.rmtree(run_dir)
    elif what == "config":
        (run_dir / "config.yaml").unlink()
    elif what == "checkpoint":
        path.unlink()
    elif what == "yaml":
        (run_dir / "config.yaml").write_text("model: [\n  a: }")
    elif what == "no model":
        (run_dir / "config.yaml").write_text("loss: {}")
    elif what == "target":
        (run_dir / "config.yaml").write_text("model: {_target_: os.getcwd}")
    elif what == "other model":
        (run_dir / "config.yaml").write_text(MODEL.replace("[4]", "[5]"))
    elif what == "inference":
        contents = checkpoint.load(path)
        del contents["inference"]["mean"]
        checkpoint.save(contents, path)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("directory", r"run: .* does not exist; expected the directory of a run"),
        ("config", r"run: .* holds no config\.yaml"),
        ("checkpoint", r"best\.pt does not exist: the run has not finished an epoch"),
        ("yaml", r"config\.yaml: is not valid YAML"),
        ("no model", r"config\.yaml: model: expected a mapping with `_target_`, got None"),
        ("target", r"config\.yaml: model\._target_: 'os\.getcwd' is not allowed"),
        ("other model", r"best\.pt: does not fit the model of .*config\.yaml \(.*size mismatch"),
        ("inference", r"best\.pt: cannot be used for prediction \('mean'\)"),
    ],
)
def test_a_damaged_run_is_one_line(what: str, message: str, tmp_path: Path) -> None:
    run_dir = make_directory(tmp_path / "run")
    damage(run_dir, what)
    with pytest.raises(UserError, match=message) as caught:
        load_predictor(run_dir)
    assert "\n" not in str(caught.value)


def test_weights_that_a_sweep_did_not_keep(tmp_path: Path) -> None:
    for place in ("7", "7/seed_0"):
        run_dir = tmp_path / place
        run_dir.mkdir()
        (run_dir / JOURNAL).touch()
        write_result(run_dir, {"state": "finished", "best_epoch": 3})
        with pytest.raises(UserError, match=r"hydra\.sweeper\.keep_checkpoints"):
            checkpoint.load(run_dir / BEST)
