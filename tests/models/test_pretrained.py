"""Weights of files as other programs write them: nested, prefixed, renamed, with another head."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from visionsweep.models.timm import create_model

State = dict[str, torch.Tensor]


def published(name: str = "test_resnet") -> State:
    """Return weights of a model with 1,000 classes; BatchNorm has seen something."""
    torch.manual_seed(1)
    model = timm.create_model(name)
    model.train()(torch.randn(4, 3, 64, 64))
    return {key: value.clone() for key, value in model.state_dict().items()}


def create(path: Path, name: str = "test_resnet", classes: int = 7, channels: int = 3) -> Any:
    return create_model(
        name, str(path), num_classes=classes, in_channels=channels, image_size=(32, 32)
    )


def renamed(state: State) -> State:
    """Other names in the same order, as in a port of the same network; without counters."""
    kept = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    return {f"_layer{number}.w": value for number, value in enumerate(kept)}


FORMS: dict[str, tuple[Callable[[State], Any], str]] = {
    "plain": (lambda state: state, ""),
    "lightning": (
        lambda state: {
            "epoch": 3,
            "state_dict": {f"model.{key}": value for key, value in state.items()},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(9)}}}],
        },
        "without the prefix model",
    ),
    "DataParallel, another head": (
        lambda state: {
            "model": {
                **{f"module.backbone.{k}": v for k, v in state.items() if not k.startswith("fc")},
                "module.head.weight": torch.zeros(3, 96),
            }
        },
        "without the prefix module.backbone",
    ),
    "average preferred": (
        lambda state: {
            "state_dict": {key: torch.zeros_like(value) for key, value in state.items()},
            "state_dict_ema": state,
        },
        "",
    ),
    "renamed": (renamed, "by order and shape: its names are others"),
    "renamed, without a head": (
        lambda state: dict(list(renamed(state).items())[:-2]),
        "by order and shape",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_but_the_head_is_that_of_the_file(
    form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, change = FORMS[form]
    state = published()
    torch.save(make(state), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, "visionsweep"):
        model = create(tmp_path / "w.pth")
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked") and not key.startswith("fc."):
            assert torch.equal(value, state[key]), key
    assert model.fc.out_features == 7
    (line,) = caplog.messages
    count = len(list(model.parameters()))
    assert f"w.pth: {count - 2} of {count} weights of test_resnet loaded" in line
    assert "new, at random: fc.weight, fc.bias" in line
    assert change in line


def test_safetensors_with_as_many_classes_keep_the_head(tmp_path: Path) -> None:
    state = published()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    model = create(tmp_path / "w.safetensors", classes=1000)
    assert torch.equal(model.fc.weight, state["fc.weight"])
    assert torch.equal(model.fc.bias, state["fc.bias"])


def test_another_number_of_channels_and_another_size_are_adapted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = published()
    torch.save(renamed(state), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, "visionsweep"):
        model = create(tmp_path / "w.pth", channels=1)
    assert "adapted: conv1.0.weight" in caplog.text
    grey = model.conv1[0].weight
    torch.testing.assert_close(grey, state["conv1.0.weight"].sum(1, keepdim=True))
    vit = timm.create_model("test_vit")  # 160 pixels
    torch.save(vit.state_dict(), tmp_path / "v.pth")
    with caplog.at_level(logging.INFO, "visionsweep"):
        create(tmp_path / "v.pth", "test_vit")
    assert "adapted: pos_embed" in caplog.text


def test_a_checkpoint_of_ours_brings_its_normalization(tmp_path: Path) -> None:
    inference = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "fit": "crop"}
    torch.save({"format": 1, "model": published(), "inference": inference}, tmp_path / "best.pt")
    model = create(tmp_path / "best.pt")
    assert model.pretrained_cfg["mean"] == [0.1, 0.2, 0.3]
    assert model.pretrained_cfg["std"] == [0.4, 0.5, 0.6]
