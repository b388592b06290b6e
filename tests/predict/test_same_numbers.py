"""The numbers of a submission do not depend on the size of a batch, to the last byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.predict.untrained_run import MEAN, STD, make_run
from visionsweep.models.timm import create_model
from visionsweep.predict.command import main
from visionsweep.rundir.layout import BEST, CONFIG
from visionsweep.training import checkpoint

NUM_IMAGES = 37  # no multiple of a batch


def make_resnet(directory: Path) -> None:
    torch.manual_seed(0)
    settings = {"num_classes": 3, "in_channels": 3, "image_size": (48, 48)}
    model = create_model("resnet10t", **settings)
    inference = {"class_names": ["cat", "dog", "owl"], "image_size": [48, 48], "channels": 3}
    inference |= {"fit": "stretch", "mean": MEAN, "std": STD, "flips": True}
    contents = {"model": model.state_dict(), "epoch": 0, "metrics": {}, "inference": inference}
    directory.mkdir()
    checkpoint.save(contents, directory / BEST)
    (directory / CONFIG).write_text(
        "model: {_target_: visionsweep.models.timm.create_model, name: resnet10t}"
    )


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.parametrize(
    ("make", "extra"), [(make_run, ["tta=[none,flip,corners]"]), (make_resnet, [])]
)
def test_batch_sizes_1_7_and_256(
    make: Callable[[Path], object], extra: list[str], images: Path
) -> None:
    make(Path("run"))
    (images / "05.png").write_text("no image")
    written = set()
    for batch_size in (1, 7, 256):
        job = ["run=run", "data.predict=images", "probabilities=true", "on_bad_image=skip"]
        assert main([*job, "device=cpu", f"batch_size={batch_size}", *extra]) == 0
        written.add(Path("submission.csv").read_bytes())
    assert len(written) == 1
    assert written.pop().count(b"\n") == NUM_IMAGES


def test_other_images_of_the_folder_change_no_number(images: Path) -> None:
    """But for those before it, which move it to another place of its batch."""
    make_resnet(Path("run"))
    job = ["run=run", "data.predict=images", "probabilities=true", "device=cpu"]
    assert main([*job, "out=all.csv"]) == 0
    for path in sorted(images.iterdir())[20:]:
        path.unlink()
    assert main([*job, "out=first.csv"]) == 0
    both = Path("all.csv").read_bytes(), Path("first.csv").read_bytes()
    assert both[0].startswith(both[1])
