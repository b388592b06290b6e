"""cloudpickle with the file names that tracebacks need, for another process of the same app."""

import io
import types
from collections import ChainMap
from typing import Any, ClassVar

import cloudpickle


def dumps(value: Any) -> bytes:
    """Return a pickle that `pickle.loads` reads wherever the app's modules can be imported.

    Functions and classes of the main module, lambdas and local ones are pickled by value.
    """
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    # cloudpickle 3.1.3 writes "<dynamic-code>" for the file (its pull request 560)
    _, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _restore_code, (arguments, code.co_filename)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
    )


def _restore_code(arguments: tuple[Any, ...], filename: str) -> types.CodeType:
    return types.CodeType(*arguments).replace(co_filename=filename)
