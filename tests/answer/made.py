"""Finished runs, made up: the files that answers are computed from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import CONFIG, RESULT
from visionsweep.rundir.predictions import Predictions, SplitPredictions, write_predictions


def split_of(
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    ids: list[str] | None = None,
    groups: list[str] | None = None,
) -> SplitPredictions:
    """Return predictions with ids and groups, made up where they are not given."""
    ids = [f"images/{i:05d}.png" for i in range(len(targets))] if ids is None else ids
    groups = [""] * len(targets) if groups is None else groups
    return SplitPredictions(np.array(ids), targets, logits, np.array(groups))


def make_finished_run(
    run_dir: Path,
    val: SplitPredictions,
    *,
    config: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
    test: SplitPredictions | None = None,
) -> Path:
    """Write the files of a finished run; `config` and `result` are merged onto plain ones."""
    names = [f"class_{k}" for k in range(val.logits.shape[1])]
    run_dir.mkdir(parents=True)
    nothing = np.zeros(0, dtype=np.int64), np.zeros((0, 1, 8, 8), dtype=np.uint8)
    write_predictions(run_dir, Predictions(names, val, test, *nothing))
    journal = Journal(run_dir)
    journal.start("name", "experiment", {}, {})
    journal.end("finished")
    journal.close()
    plain: dict[str, Any] = {
        "objective": {"metric": "val/f1_macro", "direction": "maximize", "others": {}},
        "metrics": {"absent_classes": "zero"},
        "split": {"val_fraction": 0.2, "fold": None, "num_folds": 5},
        "seed": 0,
        "name": run_dir.name,
    }
    (run_dir / CONFIG).write_text(yaml.safe_dump(plain | (config or {})))
    ended = {"state": "finished", "best_epoch": 2, "epochs": 2, "metrics": {}, "test": None}
    (run_dir / RESULT).write_text(json.dumps(ended | (result or {})))
    return run_dir
