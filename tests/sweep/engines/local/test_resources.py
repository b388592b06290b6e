"""How the slots share one machine: GPUs, threads, memory."""

import logging
from pathlib import Path
from typing import Any

import pytest

from visionsweep.errors import ConfigError
from visionsweep.sweep.engines.local.resources import (
    Limits,
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
        (None, None, 8, [2, 2, 2, 2]),  # one per core up to 4
        (None, None, 1, [1]),
        (3, None, 8, [2, 2, 2]),
        (3, None, 2, [1, 1, 1]),  # never none
        (2, 4, 8, [4, 4]),
    ],
)
def test_slots_share_the_cores(
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
        (None, 1, ["0", "1", "2"], ["0", "1", "2"]),  # one per GPU, not per core
        (2, 1, ["4", "7", "9"], ["4", "7"]),
        (None, 0.5, ["0", "1"], ["0", "1", "0", "1"]),
        (2, 0.5, ["0", "1"], ["0", "1"]),  # no sharing while there are free GPUs
        (None, 0.3, ["0"], ["0", "0", "0"]),
        (None, 0.1, ["0"], ["0"] * 10),  # 1 / 0.1 in floating point must not make 9
        (None, 2, ["0", "1", "2", "3", "4"], ["0,1", "2,3"]),
        (3, 0, ["0", "1"], ["", "", ""]),
        (None, 0.5, [], [None] * 4),
    ],
)
def test_slots_share_the_gpus(
    n_jobs: int | None, gpus_per_trial: float, gpus: list[str], expected: list[Any]
) -> None:
    assert visible(n_jobs, gpus_per_trial, gpus) == expected


@pytest.mark.parametrize(
    ("n_jobs", "gpus_per_trial", "error"),
    [
        (3, 1.0, r"n_jobs: 3 workers with .*gpus_per_trial=1 need 3 GPUs, .* has 2 \(0, 1\)"),
        (5, 0.5, "n_jobs: 5 workers .*gpus_per_trial=0.5 .*at most 4 workers"),
        (1, 3, r"gpus_per_trial: expected at most 2, .*, got 3"),
        (1, 1.5, "gpus_per_trial: expected an integer, or a fraction below 1, got 1.5"),
        (1, -1, "gpus_per_trial: expected 0 or more, got -1"),
        (0, 1, "n_jobs: expected an integer of at least 1, or null, got 0"),
        (1.5, 1, "n_jobs: expected an integer of at least 1, or null, got 1.5"),
    ],
)
def test_settings_that_do_not_fit_the_machine_are_refused(
    n_jobs: Any, gpus_per_trial: float, error: str
) -> None:
    with pytest.raises(ConfigError, match=f"^hydra.launcher.{error}"):
        visible(n_jobs, gpus_per_trial, ["0", "1"])


def test_zero_threads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"launcher\.threads: expected an integer of at least 1"):
        plan_slots(1, threads=0, num_cores=2, gpus=[])


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_trials_per_worker": 0}, "max_trials_per_worker: expected an integer of at least 1"),
        ({"trial_timeout_seconds": -1}, "trial_timeout_seconds: expected seconds above 0, .* -1"),
        ({"memory_limit": "4 apples"}, "memory_limit: expected .* got '4 apples'"),
    ],
)
def test_bad_limits_are_refused(limits: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=f"^hydra.launcher.{error}"):
        Limits(**limits)


def test_more_threads_than_cores_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plan_slots(2, threads=2, num_cores=4, gpus=[])
    assert not caplog.records
    plan_slots(2, threads=3, num_cores=4, gpus=[])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "hydra.launcher.threads=3 for 2 workers" in caplog.text


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
def test_the_environment_limits_the_gpus(
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
def test_nvidia_smi_lists_the_gpus(
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
def test_memory_sizes_are_parsed(value: Any, expected: int | None) -> None:
    assert parse_memory(value) == expected


@pytest.mark.parametrize("value", ["4 apples", "GB", "", "-1GB", 0, "0GB", True, "4G", [1]])
def test_bad_memory_sizes_are_refused(value: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"hydra\.launcher\.memory_limit: expected bytes, or a size such as 4GB"
    ):
        parse_memory(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12, "12 bytes"), (1500, "1.5 kB"), (2_340_000, "2.34 MB"), (5_000_000_000, "5 GB")],
)
def test_memory_sizes_are_formatted(value: int, expected: str) -> None:
    assert format_memory(value) == expected
