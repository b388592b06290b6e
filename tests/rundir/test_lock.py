"""The lock of a directory."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from visionsweep.errors import UserError
from visionsweep.rundir import lock
from visionsweep.rundir.lock import lock_file, locked, try_lock_file


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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path), lock_file(tmp_path / "a"), try_lock_file(tmp_path / "b") as is_held:
        assert is_held
    assert caplog.text.count(f"{tmp_path}: the file system has no locks") == 1


@pytest.mark.parametrize("hold", [lock_file, try_lock_file])
def test_a_lock_is_not_made_through_a_link(tmp_path: Path, hold: Any) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path / "lock"):
        pytest.fail("locked")
    assert not (tmp_path / "other").exists()


def test_what_is_no_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"cannot lock .* \(Is a directory\)"), locked(tmp_path):
        pytest.fail("locked")


def test_a_garbled_lock_is_free_or_held_by_somebody(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"\xff\x00")
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(b"\xff\x00")
        with pytest.raises(UserError, match="in use by another process"), locked(tmp_path):
            pytest.fail("two hold the lock")
