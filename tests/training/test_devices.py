"""Automatic choices of the machine's resources."""

import pytest
import torch

from tests.conftest import Compose
from visionsweep.errors import ConfigError
from visionsweep.machine import count_cores
from visionsweep.run.assemble import assemble
from visionsweep.run.description import resolved_config
from visionsweep.training.devices import (
    choose_device,
    choose_precision,
    choose_threads,
    unsafe_bf16_convolutions,
)
from visionsweep.training.reproducibility import set_tf32


def test_a_worker_uses_its_share_unless_a_number_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_threads(None, share=3) == (3, "the worker's share")
    assert choose_threads(2, share=3) == (2, "trainer.threads")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert choose_threads(None) == (count_cores(), "all cores, passive waiting")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert choose_threads(None) == (count_cores(), "all cores, spinning waiting")


def test_a_resumed_run_keeps_its_threads_unless_a_number_is_set() -> None:
    assert choose_threads(None, share=3, stored=5, flops=1) == (5, "as the run started")
    assert choose_threads(None, stored=5) == (5, "as the run started")
    assert choose_threads(2, stored=5, flops=1) == (2, "trainer.threads")


def test_a_small_network_trains_on_one_thread(
    compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted by hand: two operations per multiplication and addition of a 3 x 3 convolution."""
    caplog.set_level("INFO")
    before = torch.get_num_threads()
    try:
        for width, reason in (
            (2, "small network: 2.6 MFLOPs per micro-batch"),
            (1024, "all cores"),
        ):
            # 8 x 8 pixels, 1 channel -> pooled to 4 x 4 -> 4 units -> 10 classes
            flops = 2 * 1000 * (8 * 8 * 9 * width + 4 * 4 * width * 4 + 4 * 10)
            assert (flops < 1e9) == (reason != "all cores")
            model = [f"model.widths=[{width}]", "model.hidden=4", "trainer.batch_size=1000"]
            assemble(resolved_config(compose(*model, "trainer.threads=null")))
            assert torch.get_num_threads() == (1 if flops < 1e9 else count_cores())
            assert f"threads={torch.get_num_threads()} ({reason}" in caplog.text
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("size", "options", "is_unsafe"),
    [  # what oneDNN got wrong (or right) with memory that was filled with a pattern; torch 2.14.1
        ((1, 1), {"kernel_size": 3, "stride": 2, "padding": 1}, True),
        ((1, 1), {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4}, True),
        ((3, 3), {"kernel_size": 3, "stride": 4, "padding": 1}, True),
        ((3, 3), {"kernel_size": 7, "stride": 4, "padding": 3}, True),
        ((1, 1), {"kernel_size": 3, "stride": 1, "padding": 1}, False),
        ((2, 2), {"kernel_size": 3, "stride": 2, "padding": 1}, False),
        ((1, 1), {"kernel_size": 1, "stride": 2}, False),
        ((8, 8), {"kernel_size": 7, "stride": 2, "padding": 3}, False),
    ],
)
def test_convolutions_that_bf16_cannot_train_are_found(
    size: tuple[int, int], options: dict[str, int], is_unsafe: bool
) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, **options))  # type: ignore[arg-type]
    with torch.no_grad(), unsafe_bf16_convolutions() as found:
        model(torch.zeros(2, 4, *size))
    assert bool(found) == is_unsafe


def test_bf16_becomes_fp32_if_a_convolution_needs_it(
    compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    bf16 = ["trainer.precision=bf16", "trainer.device=cpu"]
    small = assemble(resolved_config(compose(*bf16, "model=timm", "model.name=resnet18")))
    assert small.settings.precision == "fp32"
    assert "precision=fp32 instead of bf16" in caplog.text
    assert "kernel 3x3, stride 2x2, padding 1x1, on 1x1 pixels" in caplog.text
    assert assemble(resolved_config(compose(*bf16))).settings.precision == "bf16"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("gpu", r"trainer\.device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'"),
        ("cuda:99", r"trainer\.device: this machine has no 'cuda:99' \(\d+ cuda devices\)"),
    ],
)
def test_a_missing_device_is_named(wanted: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_device(wanted)


def test_tf32_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.precision: tf32 needs an NVIDIA GPU"):
        choose_precision("tf32", torch.device("cpu"))


@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_is_on_or_off_for_every_product(enabled: bool) -> None:
    try:
        set_tf32(enabled)
        assert torch.backends.cudnn.allow_tf32 == enabled  # torch refuses to say, if mixed
        assert (torch.get_float32_matmul_precision() == "highest") != enabled
    finally:
        set_tf32(False)
