"""The files that say how a run began and ended, damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from visionsweep.errors import DataError
from visionsweep.rundir.description import read_config, read_environment
from visionsweep.rundir.result import read_result

GARBLED = {
    "empty": b"",
    "bytes": b"\xff\x00\x01",
    "open bracket": b"a: [\n",
    "mapping": b"{}",
    "list": b"[1]\n",
    "number": b"1",
    "null": b"null",
}
READERS: dict[str, Callable[[Path], Any]] = {
    "config.yaml": read_config,
    "environment.json": read_environment,
}


@pytest.mark.parametrize("content", GARBLED)
@pytest.mark.parametrize("name", READERS)
def test_what_a_run_needs_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(GARBLED[content])
    with pytest.raises(DataError, match=rf"cannot read {tmp_path / name} \(.+\); restore it"):
        READERS[name](tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_directory_in_its_place_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"\(Is a directory\)"):
        READERS[name](tmp_path)


@pytest.mark.parametrize("content", GARBLED)
def test_a_garbled_result_is_that_of_a_run_that_has_not_ended(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result.json").write_bytes(GARBLED[content])
    assert read_result(tmp_path) is None
    assert f"{tmp_path / 'result.json'}: damaged (" in caplog.text
