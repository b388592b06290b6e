"""Automatic choices of the machine's resources. Each returns the choice and its reason, and both are printed."""

import os

import torch

from visionsweep.errors import ConfigError
from visionsweep.sweep.trial import current_trial

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
            f"{key}: '{wanted}' is not on this machine ({available} {device.type} devices); set {key}=auto"
        )
    return wanted, key


def choose_threads(wanted: int | None) -> tuple[int, str]:
    """Return the number of CPU threads for `trainer.threads`."""
    share = current_trial().threads
    if wanted is None and share is not None:
        return share, "the worker's share"
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(
            os, "sched_getaffinity"
        ) else os.cpu_count() or 1, "all cores"
    if wanted < 1:
        raise ConfigError(
            f"trainer.threads: expected a number from 1 up or null (all cores), got {wanted}"
        )
    return wanted, "trainer.threads"


def choose_precision(wanted: str, device: torch.device) -> Choice:
    """Return fp32, bf16 or fp16 for `trainer.precision`."""
    if wanted != "auto":
        return wanted, "trainer.precision"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "the GPU has it"
    return "fp32", f"auto keeps full precision on {device.type}"


def choose_memory_format(wanted: str, device: torch.device) -> tuple[torch.memory_format, Choice]:
    """Return the memory format of images and convolutions for `trainer.memory_format`, and the choice."""
    if wanted == "auto":
        if device.type == "mps":
            return torch.contiguous_format, ("contiguous", "channels_last brings nothing on mps")
        return torch.channels_last, ("channels_last", "convolutions run faster in it")
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    return formats[wanted], (wanted, "trainer.memory_format")
