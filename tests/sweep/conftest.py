"""Fixtures of the sweep's tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine


@pytest.fixture(autouse=True)
def _sqlite_does_not_wait_for_the_disk() -> Iterator[None]:
    """Skip fsync, which tests do not need: they kill processes, not the machine.

    Thousands of small writes take a tenth of the time.
    """

    def connected(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)
