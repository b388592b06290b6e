"""Which exceptions mean that memory ran out."""

import pytest

from visionsweep.errors import is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("no room"), True),
        (OutOfMemoryError("tried to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (NotImplementedError("out of memory"), False),
    ],
)
def test_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
