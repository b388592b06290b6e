"""Frozen parts, cached features and unfreezing, on digits with tiny models of timm."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.conftest import Compose
from tests.images import make_folder
from tests.run.test_resume import assert_same_bytes, kill_and_resume, kill_in
from visionsweep.errors import ConfigError, UserError
from visionsweep.run import recorder as recording
from visionsweep.run import run
from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.description import resolved_config
from visionsweep.rundir.predictions import read_predictions
from visionsweep.training import features as features_module
from visionsweep.training.features import forget_features
from visionsweep.training.loop import fit
from visionsweep.training.predictor import load_predictor

# 539 training images, 9 updates.
SMALL = ["split.val_fraction=0.7", "trainer.batch_size=64"]
TIMM = ["model=timm", "model.name=test_resnet", *SMALL]
FROZEN = [*TIMM, "model.freeze=backbone"]
LP_FT = [*FROZEN, "model.unfreeze_epoch=3", "model.unfreeze_lr=0.0005", "trainer.epochs=4"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget_features()
    yield tmp_path / "cache"
    forget_features()


def make_parts(compose: Compose, *overrides: str) -> RunParts:
    return assemble(resolved_config(compose(*overrides)), keep_dataset=True)


def train(parts: RunParts) -> list[float]:
    losses: list[float] = []
    for number in range(len(parts.phases)):
        parts.begin_phase(number)
        settings = type(parts.settings)(
            **(vars(parts.settings) | {"epochs": parts.phase.last_epoch})
        )
        fit(
            *(parts.state, parts.train, parts.val, settings),
            on_epoch_end=lambda result: losses.append(result.metrics["val/loss"]),
        )
    return losses


def copy_of(parts: RunParts) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in parts.state.inference_weights().items()}


@pytest.mark.parametrize(
    ("name", "freeze", "frozen"),
    [
        pytest.param("test_resnet", "2", ("conv1", "bn1", "layer1"), marks=pytest.mark.slow),
        ("test_vit", "3", ("cls_token", "pos_embed", "patch_embed", "blocks.0", "blocks.1.")),
        ("test_resnet", "backbone", ("conv1", "bn1", "layer")),
    ],
)
def test_only_the_frozen_part_keeps_every_bit(
    name: str, freeze: str, frozen: tuple[str, ...], compose: Compose, tmp_path: Path
) -> None:
    """BatchNorm's statistics too."""
    settings = [f"model.name={name}", f"model.freeze={freeze}", "model.cache_features=false"]
    if name == "test_vit":  # its patches are larger than digits
        photos = make_folder(tmp_path / "photos")
        settings += ["data=image_folder", f"data.root={photos}", "data.image_size=32"]
        settings += ["trainer.batch_size=8"]
    parts = make_parts(compose, *TIMM, *settings, "optim=sgd")
    before = copy_of(parts)
    train(parts)
    after = parts.state.inference_weights()
    for key, value in before.items():
        assert torch.equal(value, after[key]) == key.startswith(frozen), key


def test_a_head_on_cached_features_trains_as_in_the_frozen_model(compose: Compose) -> None:
    """Also with accumulation, a balanced sampler, weight decay and a loss of the whole update."""
    settings = [
        *FROZEN,
        "trainer.batch_size=16",
        "trainer.accumulate=4",
        "trainer.sampler=balanced",
    ]
    settings += ["loss=ce_f1", "model.standardize=false", "trainer.epochs=3", "trainer.clip_norm=1"]
    cached = make_parts(compose, *settings)
    slow = make_parts(compose, *settings, "model.cache_features=false")
    assert next(cached.train.updates(0))[0].images.ndim == 2
    assert next(slow.train.updates(0))[0].images.ndim == 4
    losses = train(cached)
    np.testing.assert_allclose(losses, train(slow), rtol=1e-4)
    assert losses[-1] < losses[0]
    ours, theirs = cached.state.inference_weights(), slow.state.inference_weights()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-4, msg=key)


def test_the_standardized_head_is_folded_into_an_ordinary_model(compose: Compose) -> None:
    parts = make_parts(compose, *FROZEN)
    train(parts)
    features = parts.train.images[parts.train.indices].double().numpy()
    head: Any = parts.state.model
    np.testing.assert_allclose(head.mean.numpy(), features.mean(0), rtol=1e-5, atol=1e-6)
    moving = features.std(0) > 1e-5 * features.std(0).max()
    np.testing.assert_allclose(head.std.numpy()[moving], features.std(0)[moving], rtol=1e-4)
    rows = parts.val.indices[:50]
    model: Any = parts.state.trained.whole
    model.load_state_dict(parts.state.inference_weights())
    images = parts.dataset.train.images[rows]
    placement = make_parts(compose, *TIMM).train
    with torch.no_grad():
        logits = model.eval()(placement.normalize(images))
        expected = head.eval()(parts.val.images[rows])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_best_is_the_whole_model_and_predicts_as_validation_did(compose: Compose) -> None:
    run(compose(*FROZEN, "name=probe"))
    val = read_predictions(Path("outputs/probe")).val
    dataset = make_parts(compose, *TIMM).dataset
    rows = [dataset.train.ids.index(str(image_id)) for image_id in val.ids]
    with torch.no_grad():
        probabilities = load_predictor(Path("outputs/probe"))(dataset.train.images[rows])
    expected = F.softmax(torch.from_numpy(val.logits), dim=1)
    torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "epoch", [2, *(pytest.param(epoch, marks=pytest.mark.slow) for epoch in (1, 3))]
)
def test_a_run_resumes_bit_for_bit_in_each_phase(epoch: int, compose: Compose) -> None:
    """Killed within the head's epochs, between the phases, and after unfreezing."""
    overrides = [*LP_FT, "augment=basic", "model.feature_views=2", "trainer.swa=2"]
    run(compose(*overrides, "name=whole"))
    resumed = kill_and_resume(
        compose,
        overrides,
        lambda patch: kill_in(patch, recording.Recorder, "__call__", after=True, call=epoch),
    )
    assert_same_bytes(Path("outputs/whole"), resumed, "last.pt")
    assert_same_bytes(Path("outputs/whole"), resumed, "best.pt")


def test_everything_trains_after_unfreezing(compose: Compose) -> None:
    parts = make_parts(compose, *LP_FT, "optim.layer_decay=0.5", "scheduler=none")
    before = copy_of(parts)
    assert [phase.last_epoch for phase in parts.phases] == [2, 4]
    train(parts)
    assert parts.state.step == 4 * 9
    groups = parts.state.optimizer.param_groups
    assert sum(p.numel() for group in groups for p in group["params"]) == parts.num_parameters
    assert max(group["lr"] for group in groups) == 0.0005
    assert min(group["lr"] for group in groups) < 0.0005 / 4
    after = parts.state.inference_weights()
    assert not any(torch.equal(value, after[key]) for key, value in before.items())


def test_other_frozen_weights_are_not_resumed(compose: Compose) -> None:
    parts = make_parts(compose, *FROZEN)
    state = parts.state.state_dict()
    assert "conv1.0.weight" not in state["model"]  # the backbone is not in last.pt
    other = make_parts(compose, *FROZEN, "seed=1")
    with pytest.raises(UserError, match=r"weights of model\.pretrained have changed"):
        other.state.load_state_dict(state)


def computed(caplog: pytest.LogCaptureFixture) -> int:
    count = sum("computed the features" in message for message in caplog.messages)
    caplog.clear()
    return count


@pytest.mark.slow
def test_features_are_shared_by_runs_and_belong_to_weights_pixels_and_settings(
    compose: Compose, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "visionsweep")
    first = make_parts(compose, *FROZEN).train.images
    assert computed(caplog) == 1
    make_parts(compose, *FROZEN, "loss=focal", "trainer.batch_size=8", "optim=sgd")
    assert computed(caplog) == 0  # in memory
    forget_features()
    monkeypatch.setattr(features_module, "count_cores", lambda: 3)
    assert torch.equal(make_parts(compose, *FROZEN).train.images, first)
    assert computed(caplog) == 0  # from the file
    # Views do not depend on the seed, but the random weights of this test do.
    for change in (
        "seed=1",
        "augment=basic",
        "trainer.precision=bf16",
        "model.name=test_efficientnet",
    ):
        make_parts(compose, *FROZEN, change)
        assert computed(caplog) >= 1, change


def test_features_do_not_depend_on_the_number_of_threads(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    first = make_parts(compose, *FROZEN).train.images.clone()
    forget_features()
    for path in (cache / "visionsweep").glob("features-*"):
        path.unlink()
    monkeypatch.setattr(features_module, "count_cores", lambda: 3)
    assert torch.equal(make_parts(compose, *FROZEN).train.images, first)


def test_a_damaged_file_of_features_is_computed_anew(
    compose: Compose, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_parts(compose, *FROZEN).train.images.clone()
    forget_features()
    (path,) = (cache / "visionsweep").glob("features-*.npy")
    contents = bytearray(path.read_bytes())
    contents[-5] ^= 1
    path.write_bytes(contents)
    with caplog.at_level(logging.WARNING, "visionsweep"):
        assert torch.equal(make_parts(compose, *FROZEN).train.images, first)
    assert "is damaged (wrong checksum): computing the features anew" in caplog.text


def test_views_are_features_of_augmented_images(compose: Compose) -> None:
    flip = ["augment=basic", "~augment.steps.crop", "augment.steps.flip.probability=1"]
    plain = make_parts(compose, *FROZEN)
    mirrored = make_parts(compose, *FROZEN, *flip, "data.flips=true", "model.feature_views=2")
    assert mirrored.train.images.shape == (1797, 2, 96)
    pixels = plain.dataset.train.images[:40].flip(3)
    model: Any = plain.state.trained.whole
    images = make_parts(compose, *TIMM).train
    with torch.no_grad():
        expected = model.eval().forward_head(
            model.forward_features(images.normalize(pixels)), pre_logits=True
        )
    for view in (0, 1):
        torch.testing.assert_close(mirrored.train.images[:40, view], expected, rtol=1e-3, atol=1e-4)
    # Validation sees images as they are.
    assert torch.equal(mirrored.val.images, plain.val.images)


def test_swa_is_the_mean_of_the_last_updates(compose: Compose) -> None:
    parts = make_parts(compose, *SMALL, "trainer.epochs=3", "trainer.swa=2")
    seen: list[np.ndarray] = []
    update = parts.state.update_averages

    def noting() -> None:
        seen.append(parts.state.model.state_dict()["classifier.4.weight"].double().numpy().copy())
        update()

    parts.state.update_averages = noting  # type: ignore[method-assign]
    assert parts.state.evaluated_model() is parts.state.model
    train(parts)
    assert len(seen) == 27
    average = parts.state.inference_weights()["classifier.4.weight"].numpy()
    np.testing.assert_allclose(average, np.mean(seen[9:], axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.freeze=9"], r"model\.freeze: expected none, backbone or 1 to 5 stages .*, got 9"),
        (["model.freeze=half"], r"model\.freeze: expected none, backbone or a number of stages"),
        (["model.unfreeze_epoch=2"], r"model\.unfreeze_epoch: got 2, but nothing is frozen"),
        (["model.freeze=1", "model.unfreeze_epoch=3"], r"unfreeze_epoch: .*2 to 2 .*got 3"),
        (["model.freeze=1", "model.unfreeze_lr=1"], r"unfreeze_lr: got 1, but .* is null"),
        (["model.freeze=backbone", "augment=mixup"], r"augment: mixup and cutmix mix pixels"),
        (["model.feature_views=-1"], r"model\.feature_views: expected the number"),
        (["model.cache_features=yes"], r"model\.cache_features: expected true or false"),
        (["trainer.swa=1", "trainer.ema=0.9"], r"trainer\.swa: both"),
        (
            ["model.freeze=1", "model.unfreeze_epoch=2", "trainer.swa=2"],
            r"trainer\.swa: expected at most 1, the epochs from model\.unfreeze_epoch on, got 2",
        ),
        (["trainer.swa=3"], r"trainer\.swa: expected 1 to 2 epochs"),
    ],
)
def test_wrong_settings_are_one_line(overrides: list[str], message: str, compose: Compose) -> None:
    with pytest.raises(ConfigError, match=message):
        make_parts(compose, *TIMM, *overrides)


def test_a_model_without_names_of_its_layers_is_one_line(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze: CNN has no single last layer"):
        make_parts(compose, "+model.freeze=backbone", "+model.cache_features=true")
