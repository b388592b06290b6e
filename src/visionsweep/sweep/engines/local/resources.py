"""Slots of one machine with their GPUs and threads, and limits of jobs. Imports no torch.

A slot's environment is set before its worker imports anything, so torch finds only its GPUs.
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
from visionsweep.machine import count_cores

log = logging.getLogger(__name__)

_DEFAULT_JOBS = 4  # without GPUs; more would compete for memory bandwidth
_UNITS = {"": 1, **{f"{p}b": 1000**n for n, p in enumerate("kmgt", 1)}}
_UNITS |= {f"{p}ib": 1024**n for n, p in enumerate("kmgt", 1)}
_NO_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time."""

    index: int
    threads: int  # CPU threads
    environment: dict[str, str] = field(default_factory=dict)  # added to the controller's


@dataclass(frozen=True)
class Limits:
    """What a job may use; None: no limit. Raises `ConfigError` for an invalid one."""

    max_trials_per_worker: int | None = None
    trial_timeout_seconds: float | None = None
    memory_limit: Any = None  # of a worker and its descendants: "4GB", "512MiB", bytes

    def __post_init__(self) -> None:
        _check_count("max_trials_per_worker", self.max_trials_per_worker)
        seconds = self.trial_timeout_seconds
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and seconds > 0):
            raise ConfigError(
                "hydra.launcher.trial_timeout_seconds: expected seconds above 0, or null, "
                f"got {seconds!r}"
            )
        parse_memory(self.memory_limit)


def plan_slots(
    n_jobs: int | None = None,
    gpus_per_trial: float = 1.0,
    threads: int | None = None,
    *,
    num_cores: int | None = None,
    gpus: Sequence[str] | None = None,
) -> list[Slot]:
    """Return the slots of this machine.

    `n_jobs` defaults to what the GPUs allow, else to one per core up to 4; `threads` to an equal
    share of the cores; `num_cores` and `gpus` to what this machine has. Raises `ConfigError` if
    the machine cannot satisfy the settings.
    """
    num_cores = count_cores() if num_cores is None else num_cores
    gpus = find_gpus() if gpus is None else gpus
    _check_count("n_jobs", n_jobs)
    _check_count("threads", threads)
    is_number = isinstance(gpus_per_trial, (int, float)) and not isinstance(gpus_per_trial, bool)
    if not is_number or not gpus_per_trial >= 0:
        raise ConfigError(
            f"hydra.launcher.gpus_per_trial: expected 0 or more, got {gpus_per_trial!r}"
        )
    shares = _share_gpus(gpus, gpus_per_trial) if gpus and gpus_per_trial else None
    if n_jobs is None:
        n_jobs = min(num_cores, _DEFAULT_JOBS) if shares is None else len(shares)
    if shares is not None and n_jobs > len(shares):
        raise ConfigError(
            f"hydra.launcher.n_jobs: {n_jobs} workers with "
            f"hydra.launcher.gpus_per_trial={gpus_per_trial:g} need {n_jobs * gpus_per_trial:g} "
            f"GPUs, but this machine has {len(gpus)} ({', '.join(gpus)}); use at most "
            f"{len(shares)} workers, or fewer GPUs per trial"
        )
    if threads is None:
        threads = max(1, num_cores // n_jobs)
    elif threads * n_jobs > num_cores:
        log.warning(
            "hydra.launcher.threads=%d for %d workers exceeds the %d cores, which slows all down",
            *(threads, n_jobs, num_cores),
        )
    environment = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    if gpus and not gpus_per_trial:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    slots = []
    for index in range(n_jobs):
        visible = {} if shares is None else {"CUDA_VISIBLE_DEVICES": shares[index]}
        slots.append(Slot(index, threads, environment | visible))
    return slots


def _check_count(key: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(
            f"hydra.launcher.{key}: expected an integer of at least 1, or null, got {value!r}"
        )


def _share_gpus(gpus: Sequence[str], gpus_per_trial: float) -> list[str]:
    """Return the GPUs of each possible slot; slots share one only if there are more of them."""
    if gpus_per_trial < 1:
        return list(gpus) * int(1 / gpus_per_trial + 1e-6)
    if gpus_per_trial != int(gpus_per_trial):
        raise ConfigError(
            "hydra.launcher.gpus_per_trial: expected an integer, or a fraction below 1, "
            f"got {gpus_per_trial:g}"
        )
    size = int(gpus_per_trial)
    if size > len(gpus):
        raise ConfigError(
            f"hydra.launcher.gpus_per_trial: expected at most {len(gpus)}, the GPUs of this "
            f"machine ({', '.join(gpus)}), got {size}"
        )
    return [",".join(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]


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
        log.warning("nvidia-smi failed (%s): GPUs are not assigned to workers", error)
        return []
    return answer.stdout.split()


def parse_memory(value: Any) -> int | None:
    """Return `hydra.launcher.memory_limit` (`4GB`, `512MiB`, bytes) in bytes; None: no limit."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
    if match is None or match[2] not in _UNITS or not float(match[1]) > 0:
        raise ConfigError(
            "hydra.launcher.memory_limit: expected bytes, or a size such as 4GB or 512MiB, "
            f"or null, got {value!r}"
        )
    return int(float(match[1]) * _UNITS[match[2]])


def format_memory(num_bytes: int) -> str:
    """Return a size for people: `1.5 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes} bytes"
