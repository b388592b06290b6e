"""The lock of a directory."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from visionsweep.errors import UserError
from visionsweep.rundir import lock
from visionsweep.rundir.lock import locked


def test_a_lock_names_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    with (
        locked(tmp_path),
        pytest.raises(UserError, match=r"is in use by process \d+ \("),
        locked(tmp_path, wait_seconds=30),
    ):
        pytest.fail("two hold the lock")
    assert 130 <= now < 131
