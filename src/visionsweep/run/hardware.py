"""Which threads, precision and memory format a run uses, set and logged; compilation."""

import logging

import torch
from torch import nn

from visionsweep.config.schema import TrainerConfig
from visionsweep.run.checks import ForwardPass
from visionsweep.run.phase import Phase
from visionsweep.training.compiled import compile_model
from visionsweep.training.devices import (
    choose_device,
    choose_memory_format,
    choose_precision,
    choose_threads,
)
from visionsweep.training.reproducibility import set_tf32
from visionsweep.training.state import FitSettings, Precision

log = logging.getLogger(__name__)


def use_hardware(
    trainer: TrainerConfig,
    device: torch.device,
    forward: ForwardPass,
    *,
    share: int | None,
    stored: int | None,
) -> Precision:
    """Set the number of threads, log each choice with its reason, and return the precision."""
    on_cpu = device.type == "cpu"
    flops = forward.flops * trainer.batch_size if on_cpu else None
    threads, threads_reason = choose_threads(
        trainer.threads, share=share, stored=stored, flops=flops
    )
    torch.set_num_threads(threads)
    precision, precision_reason = choose_precision(trainer.precision, device)
    if precision == "bf16" and on_cpu and forward.unsafe_bf16:
        precision, precision_reason = "fp32", "bf16 is not safe for this model"
        log.warning(
            "precision=fp32 instead of bf16: on a CPU, torch %s leaves out a part of the bf16 "
            "gradient of a convolution with %s (docs/training.md)",
            *(torch.__version__, forward.unsafe_bf16[0]),
        )
    set_tf32(precision == "tf32")
    _, (format_name, format_reason) = choose_memory_format(trainer.memory_format, device)
    log.info(
        "device=%s (%s)  threads=%d (%s)  precision=%s (%s)  memory_format=%s (%s)",
        *choose_device(trainer.device),
        *(threads, threads_reason),
        *(precision, precision_reason, format_name, format_reason),
    )
    return precision


def compile_phases(
    model: nn.Module, phases: list[Phase], shape: tuple[int, int, int], settings: FitSettings
) -> None:
    """Compile the model for the first phase that trains it on images, and log the seconds."""
    of_images = [phase.train for phase in phases if len(phase.train.images.shape) == 4]
    if not of_images:
        log.info("trainer.compile: a head on cached features is too small to compile")
        return
    train = of_images[0]
    example = torch.zeros((train.batch_size, *shape), device=train.device)
    seconds = compile_model(model, train.normalize(example), settings.autocast())
    log.info("compiled the model in %.1f s", seconds)
