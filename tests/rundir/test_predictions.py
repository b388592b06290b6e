"""predictions.npz: what it keeps, and damaged files."""

from pathlib import Path

import numpy as np
import pytest

from visionsweep.errors import DataError
from visionsweep.rundir.predictions import (
    Predictions,
    SplitPredictions,
    read_predictions,
    write_predictions,
)


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


def test_groups_are_kept_and_older_files_do_not_tell(tmp_path: Path) -> None:
    ids, targets = np.array(["a", "b"]), np.array([0, 1])
    logits = np.eye(2, dtype=np.float32)
    nothing = np.zeros(0, dtype=np.int64), np.zeros((0, 1, 8, 8), dtype=np.uint8)
    for groups in (np.array(["x", ""]), None):
        val = SplitPredictions(ids, targets, logits, groups)
        write_predictions(tmp_path, Predictions(["cat", "dog"], val, val, *nothing))
        read = read_predictions(tmp_path)
        assert read.test is not None
        for split in (read.val, read.test):
            assert (None if split.groups is None else split.groups.tolist()) == (
                None if groups is None else ["x", ""]
            )
    with np.load(tmp_path / "predictions.npz") as arrays:  # as versions without groups wrote it
        assert not [name for name in arrays if "groups" in name]
