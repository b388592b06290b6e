"""Automatic choices of the machine's resources, each with its reason; both are logged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from visionsweep.errors import ConfigError
from visionsweep.machine import count_cores, waits_passively
from visionsweep.training.state import Precision

Choice = tuple[str, str]  # value, reason

# Of a micro-batch's forward pass. Below it an update takes about 30 ms on one core, and threads
# cost more than they save (docs/training.md). A fixed number, since what a probe measures may
# change from run to run, and with it the last bits of the result.
SMALL_NETWORK_FLOPS = 1_000_000_000


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


def choose_threads(
    wanted: int | None,
    *,
    share: int | None = None,
    stored: int | None = None,
    flops: int | None = None,
) -> tuple[int, str]:
    """Return the number of CPU threads for `trainer.threads`.

    ``share``: the threads of a sweep's worker; None outside of one. ``stored``: those that a
    resumed run started with, since another number changes sums in their last bits. ``flops``: the
    floating-point operations of a micro-batch's forward pass, if it runs on the CPU.
    """
    if wanted is not None:
        if wanted < 1:
            raise ConfigError(
                f"trainer.threads: expected at least 1, or null (automatic), got {wanted}"
            )
        return wanted, "trainer.threads"
    if stored is not None:
        return stored, "as the run started"
    if flops is not None and flops < SMALL_NETWORK_FLOPS:
        return 1, f"small network: {flops / 1e6:,.1f} MFLOPs per micro-batch"
    if share is not None:
        return share, "the worker's share"
    return count_cores(), f"all cores, {'passive' if waits_passively() else 'spinning'} waiting"


def choose_precision(
    wanted: Literal["auto", "fp32", "tf32", "bf16", "fp16"], device: torch.device
) -> tuple[Precision, str]:
    """Return the precision for `trainer.precision`."""
    if wanted == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"trainer.precision: tf32 needs an NVIDIA GPU, got the device {device.type}; "
            "set trainer.precision=auto"
        )
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


Axis = tuple[int, int, int, int, int]  # size, kernel, stride, padding, dilation


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every convolution, as the axes of its images."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[Axis, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            images, weight, _, stride, padding, dilation, is_transposed, *_ = args
            if not is_transposed:
                sizes = images.shape[2:], weight.shape[2:], stride, padding, dilation
                self.seen.add(tuple(zip(*sizes, strict=True)))
        return func(*args, **(kwargs or {}))


@contextmanager
def unsafe_bf16_convolutions() -> Iterator[list[str]]:
    """Note the convolutions of a forward pass that bf16 cannot train on a CPU, as text.

    If the stride is larger than the image and part of the kernel meets nothing but padding, oneDNN
    does not write that part of the weight gradient in bf16 (torch 2.14.1): it holds whatever was in
    memory. Found by the shape, since a probe would depend on what happens to be in memory.
    docs/training.md has the shapes tried.
    """
    found: list[str] = []
    with _Convolutions() as convolutions:
        yield found
    for axes in sorted(convolutions.seen):
        sizes, kernels, strides, paddings, _ = zip(*axes, strict=True)
        oversteps = any(stride > size for stride, size in zip(strides, sizes, strict=True))
        if oversteps and any(_has_idle_part(*axis) for axis in axes):
            shapes = ["x".join(map(str, part)) for part in (kernels, strides, paddings, sizes)]
            found.append("kernel {}, stride {}, padding {}, on {} pixels".format(*shapes))


def _has_idle_part(size: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Return whether some position of the kernel lies outside of the image at every output."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return any(
        all(
            not 0 <= output * stride - padding + position * dilation < size
            for output in range(outputs)
        )
        for position in range(kernel)
    )
