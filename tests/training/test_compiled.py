"""`trainer.compile`: the same training, or one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Compose
from visionsweep.errors import ConfigError
from visionsweep.run.train import run
from visionsweep.training import checkpoint


def test_a_model_that_torch_cannot_compile_is_one_line(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to find C compiler\nSet the CC environment variable")

    monkeypatch.setattr(nn.Module, "compile", fail)
    message = r"trainer\.compile: .*\(Failed to find C compiler\); set trainer\.comp"
    with pytest.raises(ConfigError, match=message):
        run(compose("trainer.compile=true"))


@pytest.mark.slow
def test_a_compiled_model_trains_as_without(compose: Compose) -> None:
    options = ["trainer.epochs=2", "model.widths=[4]", "model.hidden=8", "trainer.ema=0.9"]
    assert run(compose("name=plain", *options)) == pytest.approx(
        run(compose("name=compiled", "trainer.compile=true", *options)), abs=0.02
    )
    plain, compiled = (
        checkpoint.load(Path(f"outputs/{name}/checkpoints/best.pt"))["model"]
        for name in ("plain", "compiled")
    )
    assert list(plain) == list(compiled)
    for name, weight in plain.items():
        torch.testing.assert_close(weight, compiled[name], rtol=1e-3, atol=1e-3)
