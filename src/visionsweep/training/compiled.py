"""`trainer.compile`: the forward and backward pass as one compiled program."""

import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from visionsweep.errors import ConfigError
from visionsweep.text import first_line
from visionsweep.training.reproducibility import untouched


def compile_model(
    model: nn.Module, images: Tensor, autocast: AbstractContextManager[object]
) -> float:
    """Compile `model` in place for micro-batches like `images`; return the seconds that it took.

    The names of its weights stay, so checkpoints fit with and without. Leaves no other trace.
    Raises `ConfigError` if torch cannot compile it here.
    """
    started = time.perf_counter()
    try:
        model.compile()
        # torch compiles at the first call; now, a failure is a line about a setting.
        with untouched(model, images.device), autocast:
            model.train()(images).float().sum().backward()
    except Exception as error:  # whatever a compiler raises
        raise ConfigError(
            f"trainer.compile: torch cannot compile this model here ({first_line(error)}); "
            "set trainer.compile=false"
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - started
