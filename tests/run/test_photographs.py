"""Runs on image files whose training images have more pixels, or fewer, than the model sees."""

from pathlib import Path

import pytest
import torch

from tests.conftest import Compose
from tests.images import make_folder
from tests.run.test_resume import assert_same_bytes, kill_and_resume, kill_in
from visionsweep.errors import ConfigError
from visionsweep.run import run
from visionsweep.run.assemble import assemble
from visionsweep.run.description import resolved_config
from visionsweep.run.recorder import Recorder
from visionsweep.rundir.predictions import read_predictions


@pytest.fixture
def folder(tmp_path: Path) -> list[str]:
    make_folder(tmp_path / "photos")
    paths = [f"data.root={tmp_path / 'photos'}", f"data.cache_dir={tmp_path / 'cache'}"]
    return ["data=image_folder", *paths, "trainer.batch_size=8"]


def test_crops_come_from_more_pixels_and_validation_is_that_of_any_run(
    folder: list[str], compose: Compose
) -> None:
    size = "data.image_size=[16,8]"
    plain = assemble(resolved_config(compose(*folder, size)))
    photo = assemble(resolved_config(compose(*folder, size, "augment=photo")))
    assert photo.train.images.shape[1:] == (3, 24, 12)
    assert photo.inference == plain.inference  # predict.py decodes as before
    (batch,) = next(photo.train.updates(0))
    assert batch.images.shape[1:] == (3, 16, 8)
    for ours, theirs in zip(photo.val, plain.val, strict=True):
        assert torch.equal(ours.images, theirs.images)
    # without files there is nothing to read more from
    digits = assemble(resolved_config(compose("augment=photo")))
    assert digits.train.images is digits.dataset.train.images


def test_a_schedule_of_sizes(folder: list[str], compose: Compose) -> None:
    overrides = ["data.image_size=32", "trainer.epochs=3", "trainer.image_sizes=[16,32]"]
    timm = ["model=timm", "model.name=resnet10t"]
    parts = assemble(resolved_config(compose(*folder, *overrides, *timm)))
    sides = [next(parts.train.updates(epoch))[0].images.shape[-1] for epoch in range(3)]
    assert sides == [16, 16, 32]
    assert {batch.images.shape[-1] for batch in parts.val} == {32}
    with pytest.raises(ConfigError, match=r"^trainer\.image_sizes: .* not take images of 16x16 "):
        assemble(resolved_config(compose(*folder, *overrides, "model=cnn")))


@pytest.mark.slow
def test_a_streamed_run_ends_with_the_bytes_of_a_cached_one(
    folder: list[str], compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it is killed, and resumed with another limit."""
    overrides = [
        *folder,
        *("trainer.epochs=3", "augment=[photo,mixup]", "data.image_size=16"),
        *("model.drop_rate=0.3", "trainer.accumulate=2"),
    ]
    run(compose(*overrides, "name=cached"))
    streamed = ["data.cache_limit_gb=0", "data.workers=2"]
    with caplog.at_level("INFO"):
        run(compose(*overrides, *streamed, "name=streamed"))
    assert "decoded anew in each epoch by 2 processes" in caplog.text
    resumed = kill_and_resume(
        compose,
        overrides,
        lambda patch: kill_in(patch, Recorder, "__call__", after=True, call=1),
        then=streamed,
    )
    for name in ("best.pt", "last.pt"):
        for run_dir in (Path("outputs/streamed"), resumed):
            assert_same_bytes(Path("outputs/cached"), run_dir, name)
    predictions = [read_predictions(Path("outputs") / name) for name in ("cached", "streamed")]
    assert (predictions[0].val.logits == predictions[1].val.logits).all()
    assert (predictions[0].mistake_images == predictions[1].mistake_images).all()


@pytest.mark.slow
def test_resume_is_exact(folder: list[str], compose: Compose) -> None:
    overrides = [
        *folder,
        *(
            "data.image_size=32",
            "augment=[photo,mixup]",
            "+augment.steps.trivial._target_=visionsweep.data.augment.policies.TrivialAugment",
        ),
        *("model=timm", "model.name=resnet10t"),
        *("trainer.epochs=3", "trainer.image_sizes=[16,24,32]"),
    ]
    run(compose(*overrides, "name=whole"))
    resumed = kill_and_resume(
        compose,
        overrides,
        lambda patch: kill_in(patch, Recorder, "__call__", after=True, call=1),
    )
    assert_same_bytes(Path("outputs/whole"), resumed, "best.pt")
    assert_same_bytes(Path("outputs/whole"), resumed, "last.pt")
