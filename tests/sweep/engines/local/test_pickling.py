"""What goes to another process by reference, and what by value."""

import functools
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from visionsweep.sweep.engines.pickling import dumps

APP = """
import functools, threading

LOCK = threading.Lock()

class Model: pass

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper

def task(cfg):
    with LOCK: return Model
"""


def test_a_function_pickled_by_value_keeps_its_file_name() -> None:
    def local() -> int:
        return 1

    copy = pickle.loads(dumps(local))
    assert copy() == 1
    assert copy is not local
    assert copy.__code__.co_filename == __file__


def main_module(source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(source, module.__dict__)
    return module


def test_the_main_module_goes_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has a module of its own, whose objects it takes; `hydra.main` is taken off."""
    app = main_module(APP, monkeypatch)
    task, app.task = app.task, app.decorated(app.decorated(app.task))
    blob = dumps((task, app.Model))
    imported = main_module(APP, monkeypatch)
    original, imported.task = imported.task, imported.decorated(imported.decorated(imported.task))
    assert pickle.loads(blob) == (original, imported.Model)


def test_what_the_worker_does_not_find_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    app = main_module("def task(): return helper()\ndef helper(): return 3", monkeypatch)
    blob = dumps(app.task)
    main_module("", monkeypatch)
    assert pickle.loads(blob)() == 3


def decorated(function: Callable[[], Any]) -> Callable[[], Any]:
    return functools.wraps(function)(lambda: function())


lock_user_calls: list[int] = []


def lock_user() -> None:
    lock_user_calls.append(1)


undecorated, lock_user = lock_user, decorated(lock_user)


def test_a_decorated_function_of_any_module_goes_by_reference() -> None:
    assert pickle.loads(dumps(undecorated)) is undecorated
