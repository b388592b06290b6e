"""Runs on image files: how they were decoded goes with the checkpoint, copies stay together."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Compose
from tests.images import make_folder, make_image
from tests.run.test_resume import Killed, assert_same_bytes, kill_and_resume, kill_in
from visionsweep.data.decode import decode_image
from visionsweep.data.split_manifest import read_split
from visionsweep.errors import UserError
from visionsweep.run import run
from visionsweep.run.assemble import assemble
from visionsweep.run.description import resolved_config
from visionsweep.run.recorder import Recorder
from visionsweep.rundir.copies import read_copies
from visionsweep.rundir.layout import COPIES
from visionsweep.training.predictor import load_predictor

ONE_EPOCH = [
    *("data=image_folder", "data.root=photos", "data.image_size=12"),
    *("trainer.epochs=1", "trainer.batch_size=8"),
]


def test_prediction_decodes_as_training_did(compose: Compose) -> None:
    """12-bit images, and drawings on transparent ground, one of them too large for the default."""
    rng = np.random.default_rng(0)
    for number, name in enumerate("ab"):
        Path("photos", name).mkdir(parents=True)
        for index in range(6):
            deep = rng.integers(0, 2000 * (number + 1), (20, 20)).astype(np.uint16)
            Image.fromarray(deep).save(f"photos/{name}/deep{index}.png")
            drawing = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
            Image.fromarray(drawing).save(f"photos/{name}/drawing{index}.png")
    settings = ["data.background=[9,80,200]", "data.max_pixels=1000", "data.fit=stretch"]
    config = compose(*ONE_EPOCH, *settings, "name=a")
    run(config)
    parts = assemble(resolved_config(config))
    preprocessing = load_predictor(Path("outputs/a")).preprocessing
    assert preprocessing.levels == (0, 4095)
    assert preprocessing.background == (9, 80, 200)
    assert preprocessing.max_pixels == 1000
    train = parts.dataset.train
    for image_id, image in zip(train.ids, train.images, strict=True):
        decoded = torch.from_numpy(decode_image(Path("photos", image_id), preprocessing))
        assert torch.equal(image, decoded), image_id


def test_copies_stay_together_in_the_manifest_and_when_a_run_is_resumed(compose: Compose) -> None:
    make_folder(Path("photos"))
    for path in sorted(Path("photos").rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy{path.name}"))
    resumed = kill_and_resume(
        compose, ONE_EPOCH, lambda patch: kill_in(patch, Recorder, "__call__", after=False, call=1)
    )
    rows = {row.id: row for row in read_split(resumed / "split.csv")}
    for name, row in rows.items():
        original = rows[name.replace("copy", "")]
        assert row.split == original.split
        assert row.group == original.id
    run(compose(*ONE_EPOCH, "name=whole"))
    assert_same_bytes(Path("outputs/whole"), resumed, "best.pt")


def test_a_run_whose_copies_were_split_by_an_older_version_is_refused(compose: Compose) -> None:
    make_folder(Path("photos"))
    shutil.copy("photos/cat/00.png", "photos/cat/copy.png")
    config = [*ONE_EPOCH, "name=old"]
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, Recorder, "__call__", after=True, call=1)
        with pytest.raises(Killed):
            run(compose(*config))
    manifest = Path("outputs/old/split.csv")
    manifest.write_text(manifest.read_text().replace(",cat/00.png\n", ",\n"))
    with pytest.raises(UserError, match=r"split\.csv: .*or its split was made by another version"):
        run(compose(*config, "resume=outputs/old"))


def test_a_run_keeps_pictures_of_test_images_that_look_like_one_for_training(
    compose: Compose,
) -> None:
    """An image saved again under another label, in other bytes. Nobody looks unless asked to."""
    make_folder(Path("photos/train"))
    for number, name in enumerate(("cat", "dog", "fox")):
        Path("photos/test", name).mkdir(parents=True)
        make_image(number, 100).save(f"photos/test/{name}/00.png")
    twins = Path("photos/train/dog/03.png"), Path("photos/test/fox/again.png")
    Image.open(twins[0]).save(twins[1], compress_level=1)
    assert twins[0].read_bytes() != twins[1].read_bytes()
    run(compose(*ONE_EPOCH, "data.near_duplicates=0", "name=near"))
    copies = read_copies(Path("outputs/near"))
    assert copies is not None
    assert copies.ids.tolist() == [["train/dog/03.png", "test/fox/again.png"]]
    assert copies.classes.tolist() == [["dog", "fox"]]
    assert copies.splits[0, 1] == "test"
    pixels = np.array(Image.open(twins[1])).transpose(2, 0, 1)
    assert (copies.images == pixels).all()
    run(compose(*ONE_EPOCH, "name=plain"))
    assert not Path("outputs/plain", COPIES).exists()
