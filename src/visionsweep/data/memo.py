"""The datasets that this process has built: a warm worker decodes or opens its images once, not once a trial.

Only for processes that run many jobs on data that stays as it is: what changes on disk is not seen here.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from visionsweep.data.dataset import ImageDataset

MAX_DATASETS = 2

log = logging.getLogger(__name__)
_datasets: OrderedDict[str, ImageDataset] = OrderedDict()  # the one used last comes last


def remembered(node: dict[str, Any], load: Callable[[], ImageDataset]) -> ImageDataset:
    """Return the dataset of the resolved `data` config: the one that this process has, else what `load` returns.

    A dataset is never changed by a run, so that all runs of a process share one.
    """
    key = json.dumps(node, sort_keys=True)
    dataset = _datasets.pop(key, None)
    if dataset is None:
        dataset = load()
    else:
        log.info("data: %s is in memory", dataset.name)
    _datasets[key] = dataset
    if len(_datasets) > MAX_DATASETS:
        _datasets.popitem(last=False)
    return dataset


def forget_datasets() -> None:
    """Free all of them."""
    _datasets.clear()
