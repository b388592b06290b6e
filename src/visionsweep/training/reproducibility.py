"""Seeds and states of the random generators, and deterministic algorithms."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch (all devices), Python and NumPy."""
    import numpy as np

    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def torch_rng_states(device: torch.device) -> list[torch.Tensor]:
    """Return the states of torch's CPU generator and of the device's own, if it has one."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def restore_torch_rng_states(states: list[torch.Tensor], device: torch.device) -> None:
    """Restore the generators. A run resumed on another device type restores the CPU's only."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)
    elif device.type == "mps" and len(states) > 1:
        torch.mps.set_rng_state(states[1].cpu())


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore the model's buffers and torch's random generators after a trial pass."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    rng = torch_rng_states(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        restore_torch_rng_states(rng, device)


def set_tf32(enabled: bool) -> None:
    """Let a GPU round the factors of float32 products to 19 bits, or keep all of them."""
    # Not `fp32_precision`, the newer switch: torch.export reads these, and refuses a mixture.
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def set_deterministic(enabled: bool) -> None:
    """Make torch use deterministic algorithms, or let it choose again."""
    if enabled:
        # cuBLAS reads it at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # torch imports its compiler in this call, which takes seconds.
    if torch.are_deterministic_algorithms_enabled() != enabled:
        torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
    torch.backends.cudnn.benchmark = not enabled
