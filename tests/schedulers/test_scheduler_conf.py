"""Every conf/scheduler choice is a schedule with a warm-up that can be set from the command line."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from visionsweep.schedulers.base import Scheduler

CHOICES = sorted((Path(__file__).parents[2] / "conf/scheduler").glob("*.yaml"))
RUNTIME = {"total_updates": 100, "updates_per_epoch": 10, "direction": "maximize"}


def test_all_choices_exist():
    issued = {"none", "step", "cosine", "plateau", "onecycle", "cosine_restarts"}
    assert issued <= {path.stem for path in CHOICES}


@pytest.mark.parametrize("warmup_epochs", [None, 2])
@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_choice_builds_and_warms_up(path, warmup_epochs):
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert "warmup_epochs" in node
    if warmup_epochs is not None:
        node["warmup_epochs"] = warmup_epochs
    scheduler_class = get_class(node.pop("_target_"))
    parameters = inspect.signature(scheduler_class).parameters
    runtime = {name: value for name, value in RUNTIME.items() if name in parameters}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = scheduler_class(optimizer, **node, **runtime)
    assert isinstance(scheduler, Scheduler)
    lrs = []
    for _ in range(100):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(lrs) == 0.5
    if warmup_epochs is not None:
        assert lrs.index(0.5) == 19
        assert lrs[:20] == sorted(lrs[:20])
