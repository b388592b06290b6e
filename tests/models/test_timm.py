"""Pretrained weights: files that do not fit, files of strangers, no network."""

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from visionsweep.errors import ConfigError
from visionsweep.models import timm as ours

pytestmark = pytest.mark.slow  # importing timm takes seconds


def create(pretrained: bool | str | Path, name: str = "resnet10t") -> Any:
    pretrained = str(pretrained) if isinstance(pretrained, Path) else pretrained
    return ours.create_model(name, pretrained, num_classes=7, in_channels=1, image_size=(32, 32))


def weights_of(name: str, path: Path) -> Path:
    import timm

    torch.save(timm.create_model(name).state_dict(), path)
    return path


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def test_a_file_of_the_model_is_loaded_with_a_new_head(tmp_path: Path) -> None:
    path = weights_of("resnet10t", tmp_path / "w.pth")
    model = create(path)
    assert model.fc.out_features == 7
    assert torch.equal(model.layer1[0].conv1.weight, torch.load(path)["layer1.0.conv1.weight"])


@pytest.mark.filterwarnings("ignore")  # of timm
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a": torch.zeros(3)}, r"w\.pth has 0% of the weights of resnet10t"),
        ({}, r"cannot load weights of resnet10t \(it holds no tensor\)"),
    ],
)
def test_a_file_of_which_nothing_fits_is_refused(
    contents: Any, message: str, tmp_path: Path
) -> None:
    torch.save(contents, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=message):
        create(tmp_path / "w.pth")


def test_a_file_of_which_half_fits_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "visionsweep"):
        create(weights_of("resnet18", tmp_path / "w.pth"), "resnet34")
    assert "53 % of the weights of resnet34; the others start at random" in caplog.text


@pytest.mark.filterwarnings("ignore")  # of torch
def test_a_file_of_a_stranger_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"a": Evil(trace)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="cannot load weights of resnet10t"):
        create(tmp_path / "w.pth")
    assert not trace.exists()


def test_without_a_network_the_end_comes_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the server is looked up for ever here."""
    waits = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: waits.wait(60))
    monkeypatch.setattr(ours, "_SECONDS_TO_ANSWER", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"model\.pretrained: cannot load weights of resnet10t"):
        create(True)
    assert constants.HF_HUB_OFFLINE is False
    waits.set()
