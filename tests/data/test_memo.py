"""The data sets that a process keeps."""

from collections.abc import Iterator
from typing import Any

import pytest

from visionsweep.data import memo
from visionsweep.errors import ConfigError


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    memo.forget_datasets()
    yield
    memo.forget_datasets()


def test_the_two_used_last_are_kept() -> None:
    loads: list[str] = []

    class Dataset:
        def __init__(self, name: str) -> None:
            loads.append(name)
            self.name = name

    def get(name: str) -> Any:
        return memo.remembered({"path": name}, lambda: Dataset(name))  # type: ignore[arg-type, return-value]

    first = get("a")
    get("b")
    assert get("a") is first
    get("c")  # b goes
    assert get("a") is first
    get("b")
    assert loads == ["a", "b", "c", "b"]


def test_a_failed_load_is_tried_again() -> None:
    def fail() -> Any:
        raise ConfigError("no")

    for _ in range(2):
        with pytest.raises(ConfigError):
            memo.remembered({"path": "x"}, fail)
