"""What one machine has to share out: slots with their GPUs and threads, limits on memory. Imports no torch.

The environment of a slot is there before its worker imports anything, so that torch finds only the slot's GPUs.
"""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from visionsweep.errors import ConfigError

log = logging.getLogger(__name__)

_DEFAULT_JOBS = 4  # without a GPU: more small trainings than this fight over memory bandwidth
_UNITS = {"": 1, **{f"{p}b": 1000**n for n, p in enumerate("kmgt", 1)}}
_UNITS |= {f"{p}ib": 1024**n for n, p in enumerate("kmgt", 1)}
_NO_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time."""

    index: int
    threads: int  # CPU threads
    environment: dict[str, str] = field(
        default_factory=dict
    )  # of its worker, beside the controller's own


def plan_slots(
    n_jobs: int | None = None,
    gpus_per_trial: float = 1.0,
    threads: int | None = None,
    *,
    num_cores: int | None = None,
    gpus: Sequence[str] | None = None,
) -> list[Slot]:
    """Return the slots of this machine.

    `n_jobs` defaults to as many as the GPUs allow, else one a core up to 4; `threads` to an equal share of the cores.
    `num_cores` and `gpus` are found out where they are not given. Raises `ConfigError` where the machine cannot serve
    the settings.
    """
    num_cores = count_cores() if num_cores is None else num_cores
    gpus = find_gpus() if gpus is None else gpus
    _check_count("n_jobs", n_jobs)
    _check_count("threads", threads)
    if (
        isinstance(gpus_per_trial, bool)
        or not isinstance(gpus_per_trial, (int, float))
        or not gpus_per_trial >= 0
    ):
        raise ConfigError(
            f"hydra.launcher.gpus_per_trial: expected a number from 0 on, got {gpus_per_trial!r}"
        )
    shares = _deal_out(gpus, gpus_per_trial) if gpus and gpus_per_trial else None
    if n_jobs is None:
        n_jobs = min(num_cores, _DEFAULT_JOBS) if shares is None else len(shares)
    if shares is not None and n_jobs > len(shares):
        raise ConfigError(
            f"hydra.launcher.n_jobs: {n_jobs} workers with hydra.launcher.gpus_per_trial={gpus_per_trial:g} need "
            f"{n_jobs * gpus_per_trial:g} GPUs, this machine has {len(gpus)} ({', '.join(gpus)}); "
            f"at most {len(shares)} workers, or fewer GPUs a trial"
        )
    if threads is None:
        threads = max(1, num_cores // n_jobs)
    elif threads * n_jobs > num_cores:
        log.warning(
            "hydra.launcher.threads=%d for %d workers: more than the %d cores, they will slow each other down",
            *(threads, n_jobs, num_cores),
        )
    environment = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    if gpus and not gpus_per_trial:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return [
        Slot(
            i,
            threads,
            environment if shares is None else {**environment, "CUDA_VISIBLE_DEVICES": shares[i]},
        )
        for i in range(n_jobs)
    ]


def _check_count(key: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(
            f"hydra.launcher.{key}: expected a whole number from 1 on, or null, got {value!r}"
        )


def _deal_out(gpus: Sequence[str], gpus_per_trial: float) -> list[str]:
    """Return the visible GPUs of each slot that fits; the first slots get GPUs of their own."""
    if gpus_per_trial < 1:
        return list(gpus) * int(1 / gpus_per_trial + 1e-6)
    if gpus_per_trial != int(gpus_per_trial):
        raise ConfigError(
            f"hydra.launcher.gpus_per_trial: expected a whole number, or a fraction below 1, got {gpus_per_trial:g}"
        )
    size = int(gpus_per_trial)
    if size > len(gpus):
        raise ConfigError(
            f"hydra.launcher.gpus_per_trial: {size} GPUs wanted, this machine has {len(gpus)} ({', '.join(gpus)})"
        )
    return [",".join(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [] if names[0] in _NO_GPU else [name for name in names if name]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi does not answer (%s): the workers get no GPU of their own", error)
        return []
    return answer.stdout.split()


def parse_memory(value: Any) -> int | None:
    """Return `hydra.launcher.memory_limit` in bytes: `4GB`, `512MiB`, or a number of bytes; None: no limit."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
    if (
        isinstance(value, bool)
        or match is None
        or match[2] not in _UNITS
        or not float(match[1]) > 0
    ):
        raise ConfigError(
            f"hydra.launcher.memory_limit: expected bytes, or a size such as 4GB or 512MiB, or null, got {value!r}"
        )
    return int(float(match[1]) * _UNITS[match[2]])


def format_memory(num_bytes: int) -> str:
    """Return a size for people: `1.5 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes} bytes"
