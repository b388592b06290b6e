"""cloudpickle for another process of the same app.

Functions and classes go by reference (module and name) wherever the other process can find them, so
that they are the same objects as those of the imported module: its locks, caches and classes exist
once, and a class of the main module can be pickled there. The rest goes by value.
"""

import importlib
import io
import operator
import pickle
import sys
import types
from collections import ChainMap
from typing import Any, ClassVar

import cloudpickle

_MAIN = "__main__"


def dumps(value: Any) -> bytes:
    """Return a pickle that `pickle.loads` reads wherever the app's modules can be imported."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    # cloudpickle 3.1.3 writes "<dynamic-code>" for the file (its pull request 560)
    _, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _restore_code, (arguments, code.co_filename)


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )


class _Pickler(_ByValue):
    def reducer_override(self, value: Any) -> Any:
        # cloudpickle itself takes the main module, and a name that is a decorated function now
        # (hydra.main), by value.
        if isinstance(value, types.FunctionType | type):
            module, name, depth = value.__module__, value.__qualname__, _depth(value)
            if depth is not None and (depth > 0 or module == _MAIN):
                return _load, (module, name, depth, _by_value(value) if module == _MAIN else None)
        return super().reducer_override(value)


def _by_value(value: Any) -> bytes | None:
    """Return a pickle for a name that no other process has: of a notebook, of `python -c`."""
    buffer = io.BytesIO()
    try:
        _ByValue(buffer).dump(value)
    except Exception:  # it uses a lock, for example
        return None
    return buffer.getvalue()


def _depth(value: Any) -> int | None:
    """Return how many decorators to take off what `value`'s name leads to; None: it does not."""
    try:
        found = _named(sys.modules[value.__module__], value.__qualname__)
    except (KeyError, AttributeError):
        return None
    depth = 0
    while found is not value and found is not None:
        found, depth = getattr(found, "__wrapped__", None), depth + 1
    return None if found is None else depth


def _load(module: str, name: str, depth: int, by_value: bytes | None) -> Any:
    try:
        found = _named(importlib.import_module(module), name)
    except AttributeError:
        if by_value is None:
            raise
        return pickle.loads(by_value)
    for _ in range(depth):
        found = found.__wrapped__
    return found


def _named(module: types.ModuleType, name: str) -> Any:
    return operator.attrgetter(name)(module)


def _restore_code(arguments: tuple[Any, ...], filename: str) -> types.CodeType:
    return types.CodeType(*arguments).replace(co_filename=filename)
