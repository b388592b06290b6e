"""What this machine offers."""

import os

import pytest

from visionsweep.machine import count_cores, wait_passively, waits_passively


def test_only_the_cores_of_this_process_count() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert count_cores() == len(allowed)


def test_openmp_waits_passively_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_passively()
    assert not waits_passively()
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_passively()
    assert waits_passively()
