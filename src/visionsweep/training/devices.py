"""Automatic choices of the machine's resources, each with its reason; both are logged."""

from typing import Literal

import torch

from visionsweep.errors import ConfigError
from visionsweep.machine import count_cores
from visionsweep.training.state import Precision

Choice = tuple[str, str]  # value, reason


def choose_device(wanted: str, key: str = "trainer.device") -> Choice:
    """Return the name of the torch device for the setting `key`."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda", f"found {torch.cuda.get_device_name(0)}"
        if torch.backends.mps.is_available():
            return "mps", "found an Apple GPU"
        return "cpu", "no GPU found"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(
            f"{key}: expected auto, cpu, cuda, cuda:N or mps, got '{wanted}'"
        ) from error
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= available:
        raise ConfigError(
            f"{key}: this machine has no '{wanted}' ({available} {device.type} devices); "
            f"set {key}=auto"
        )
    return wanted, key


def choose_threads(wanted: int | None, share: int | None = None) -> tuple[int, str]:
    """Return the number of CPU threads for `trainer.threads`.

    ``share``: the threads of a sweep's worker; None outside of one.
    """
    if wanted is None:
        return (count_cores(), "all cores") if share is None else (share, "the worker's share")
    if wanted < 1:
        raise ConfigError(
            f"trainer.threads: expected at least 1, or null (all cores), got {wanted}"
        )
    return wanted, "trainer.threads"


def choose_precision(
    wanted: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device
) -> tuple[Precision, str]:
    """Return the precision for `trainer.precision`."""
    if wanted != "auto":
        return wanted, "trainer.precision"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "supported by the GPU"
    return "fp32", f"auto keeps full precision on {device.type}"


def choose_memory_format(wanted: str, device: torch.device) -> tuple[torch.memory_format, Choice]:
    """Return the memory format for `trainer.memory_format`, and the choice by name."""
    if wanted == "auto":
        if device.type == "mps":
            return torch.contiguous_format, ("contiguous", "channels_last is no faster on mps")
        return torch.channels_last, ("channels_last", "faster convolutions")
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    return formats[wanted], (wanted, "trainer.memory_format")
