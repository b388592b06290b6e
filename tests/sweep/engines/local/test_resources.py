"""Slots, GPUs, threads and memory: sharing out one machine."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from visionsweep.errors import ConfigError
from visionsweep.sweep.engines.local.resources import (
    count_cores,
    find_gpus,
    format_memory,
    parse_memory,
    plan_slots,
)


def visible(n_jobs: int | None, gpus_per_trial: float, gpus: list[str]) -> list[str | None]:
    slots = plan_slots(n_jobs, gpus_per_trial, num_cores=8, gpus=gpus)
    assert [slot.index for slot in slots] == list(range(len(slots)))
    return [slot.environment.get("CUDA_VISIBLE_DEVICES") for slot in slots]


@pytest.mark.parametrize(
    ("n_jobs", "threads", "num_cores", "expected"),
    [
        (None, None, 2, [1, 1]),
        (None, None, 8, [2, 2, 2, 2]),  # one a core up to 4
        (None, None, 1, [1]),
        (3, None, 8, [2, 2, 2]),
        (3, None, 2, [1, 1, 1]),  # never none
        (2, 4, 8, [4, 4]),
    ],
)
def test_cores_are_shared_out(
    n_jobs: int | None, threads: int | None, num_cores: int, expected: list[int]
) -> None:
    slots = plan_slots(n_jobs, threads=threads, num_cores=num_cores, gpus=[])
    assert [slot.threads for slot in slots] == expected
    for slot in slots:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        assert slot.environment == dict.fromkeys(names, str(slot.threads))


@pytest.mark.parametrize(
    ("n_jobs", "gpus_per_trial", "gpus", "expected"),
    [
        (None, 1, ["0", "1", "2"], ["0", "1", "2"]),  # one a GPU, more than 4 cores would give
        (2, 1, ["4", "7", "9"], ["4", "7"]),
        (None, 0.5, ["0", "1"], ["0", "1", "0", "1"]),
        (2, 0.5, ["0", "1"], ["0", "1"]),  # a GPU each as long as there are some
        (None, 0.3, ["0"], ["0", "0", "0"]),
        (None, 0.1, ["0"], ["0"] * 10),  # 1 / 0.1 in floating point must not make 9
        (None, 2, ["0", "1", "2", "3", "4"], ["0,1", "2,3"]),
        (3, 0, ["0", "1"], ["", "", ""]),
        (None, 0.5, [], [None] * 4),
    ],
)
def test_gpus_are_dealt_out(
    n_jobs: int | None, gpus_per_trial: float, gpus: list[str], expected: list[Any]
) -> None:
    assert visible(n_jobs, gpus_per_trial, gpus) == expected


@pytest.mark.parametrize(
    ("n_jobs", "gpus_per_trial", "error"),
    [
        (
            3,
            1.0,
            r"hydra.launcher.n_jobs: 3 workers with hydra.launcher.gpus_per_trial=1 need 3 GPUs, .* has 2 \(0, 1\)",
        ),
        (5, 0.5, "hydra.launcher.n_jobs: 5 workers .*gpus_per_trial=0.5 .*at most 4 workers"),
        (1, 3, r"hydra.launcher.gpus_per_trial: 3 GPUs wanted, this machine has 2"),
        (
            1,
            1.5,
            "hydra.launcher.gpus_per_trial: expected a whole number, or a fraction below 1, got 1.5",
        ),
        (1, -1, "hydra.launcher.gpus_per_trial: expected a number from 0 on, got -1"),
        (0, 1, "hydra.launcher.n_jobs: expected a whole number from 1 on, or null, got 0"),
        (1.5, 1, "hydra.launcher.n_jobs: expected a whole number from 1 on, or null, got 1.5"),
    ],
)
def test_what_the_machine_cannot_serve_is_refused(
    n_jobs: Any, gpus_per_trial: float, error: str
) -> None:
    with pytest.raises(ConfigError, match=error):
        visible(n_jobs, gpus_per_trial, ["0", "1"])


def test_no_threads_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"hydra\.launcher\.threads: expected a whole number from 1 on"
    ):
        plan_slots(1, threads=0, num_cores=2, gpus=[])


def test_more_threads_than_cores_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plan_slots(2, threads=2, num_cores=4, gpus=[])
    assert not caplog.records
    plan_slots(2, threads=3, num_cores=4, gpus=[])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "hydra.launcher.threads=3 for 2 workers" in caplog.text


def test_only_the_cores_of_this_process_count() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert count_cores() == len(allowed)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0,1", ["0", "1"]),
        (" GPU-8f2a , 3", ["GPU-8f2a", "3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_the_environment_says_which_gpus(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert find_gpus() == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('test "$*" = "--query-gpu=index --format=csv,noheader" && printf "0\\n1\\n"', ["0", "1"]),
        ("echo no driver; exit 9", []),
        (None, []),
    ],
)
def test_nvidia_smi_says_which_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, expected: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    assert find_gpus() == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (123456789, 123456789),
        ("4GB", 4_000_000_000),
        ("512MiB", 512 * 1024 * 1024),
        ("1.5 gib", 1_610_612_736),
        ("2kB", 2000),
        ("3000", 3000),
    ],
)
def test_sizes_of_memory(value: Any, expected: int | None) -> None:
    assert parse_memory(value) == expected


@pytest.mark.parametrize("value", ["4 apples", "GB", "", "-1GB", 0, "0GB", True, "4G", [1]])
def test_what_is_no_size_of_memory(value: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"hydra\.launcher\.memory_limit: expected bytes, or a size such as 4GB"
    ):
        parse_memory(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12, "12 bytes"), (1500, "1.5 kB"), (2_340_000, "2.34 MB"), (5_000_000_000, "5 GB")],
)
def test_sizes_for_people(value: int, expected: str) -> None:
    assert format_memory(value) == expected
