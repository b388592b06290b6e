"""The datasets of this process: a warm worker loads its images once, not once per trial.

Changes on disk go unnoticed, so this is only for processes that run many jobs on the same data.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from visionsweep.data.dataset import ImageDataset

MAX_DATASETS = 2

log = logging.getLogger(__name__)
_datasets: dict[str, ImageDataset] = {}  # the one used last comes last


def remembered(node: dict[str, Any], load: Callable[[], ImageDataset]) -> ImageDataset:
    """Return the dataset of the resolved `data` config, calling `load` if it is not in memory.

    Runs never change a dataset, so all runs of a process can share one.
    """
    key = json.dumps(node, sort_keys=True)
    dataset = _datasets.pop(key, None)
    if dataset is None:
        dataset = load()
    else:
        log.info("data: %s is in memory", dataset.name)
    _datasets[key] = dataset
    if len(_datasets) > MAX_DATASETS:
        del _datasets[next(iter(_datasets))]
    return dataset


def forget_datasets() -> None:
    """Free all datasets."""
    _datasets.clear()
