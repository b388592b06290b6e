"""What is waited for, how long, and what the user is told."""

import errno
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from visionsweep.sweep import patience
from visionsweep.sweep.patience import GaveUp, Patience, waiting_reason
from visionsweep.sweep.storage import open_storage, open_study_id


def opened(path: Path, requests: list[int]) -> tuple[BaseStorage, int]:
    storage = open_storage(f"sqlite:///{path}", requests)
    return storage, open_study_id(storage, "s", [StudyDirection.MAXIMIZE], "a")


CALLS: list[Callable[[BaseStorage, int], Any]] = [
    lambda storage, study: storage.create_new_trial(study),
    lambda storage, study: storage.get_all_trials(study),
    lambda storage, study: storage.set_study_user_attr(study, "a", 1),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_locked_database_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: Any
) -> None:
    """It is released as soon as the line is there: nothing but that line depends on time."""
    monkeypatch.setattr(patience, "_SAY_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("visionsweep.sweep.storage._BUSY_SECONDS", 0.05)
    storage, study_id = opened(tmp_path / "study.db", [])
    locker = sqlite3.connect(tmp_path / "study.db", isolation_level=None, check_same_thread=False)
    locker.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(patience.log, "warning", lambda *_: locker.execute("ROLLBACK"))
    with caplog.at_level("INFO"):
        call(storage, study_id)
    assert caplog.messages[-1:] == [f"{tmp_path / 'study.db'} can be used again"]


def test_a_second_request_ends_the_wait_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionsweep.sweep.storage._BUSY_SECONDS", 0.05)
    requests: list[int] = []
    storage, study_id = opened(tmp_path / "study.db", requests)
    locker = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    # Optuna would wait for a random time, between attempts of its own that nothing interrupts.
    monkeypatch.setattr("random.random", lambda: pytest.fail("Optuna waits"))
    threading.Timer(0.1, requests.extend, [(2, 2)]).start()
    began = time.monotonic()
    with pytest.raises(GaveUp, match=r"study\.db is locked by another program"):
        storage.create_new_trial(study_id)
    assert time.monotonic() - began < patience._STOP_AFTER_SECONDS
    with pytest.raises(GaveUp):
        open_storage(f"sqlite:///{tmp_path / 'study.db'}", requests)
    locker.close()


def test_a_first_request_leaves_time_for_a_short_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_POLL_SECONDS", 0.0)
    answers = iter([locked(), locked(), "done"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert Patience("study.db", [2]).call(call) == "done"
    monkeypatch.setattr(patience, "_STOP_AFTER_SECONDS", -1.0)
    answers = iter([locked()])
    with pytest.raises(GaveUp):
        Patience("study.db", [2]).call(call)


def locked() -> Exception:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def test_only_what_ends_by_itself_is_waited_for() -> None:
    full = RuntimeError("cannot save")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert waiting_reason(full) == "cannot grow, since the disk is full"
    assert waiting_reason(sqlite3.OperationalError("no such table: trials")) is None
    assert waiting_reason(OSError(errno.EACCES, "Permission denied")) is None
