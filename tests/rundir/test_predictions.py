"""predictions.npz, damaged."""

from pathlib import Path

import numpy as np
import pytest

from visionsweep.errors import DataError
from visionsweep.rundir.predictions import read_predictions


@pytest.mark.parametrize("content", [b"", b"\xff\x00[1]\n", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*predictions\.npz \("):
        read_predictions(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    with (tmp_path / "predictions.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"cannot read .*predictions\.npz \("):
        read_predictions(tmp_path)
