"""Every conf/optim choice trains on parameter groups and resumes to the bit."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from visionsweep.errors import ConfigError
from visionsweep.optim.param_groups import param_groups
from visionsweep.optim.timm import create_optimizer

CHOICES = sorted((Path(__file__).parents[2] / "conf/optim").glob("*.yaml"))


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(8, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.randint(4, (8,), generator=generator)).backward()
        optimizer.step()


def check_round_trip(make: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
    """Three steps, save, load into a new optimizer, three more: equal to six steps to the bit."""
    model = small_net().to(memory_format=torch.channels_last)
    start = copy.deepcopy(model.state_dict())
    optimizer = make(model)
    train(model, optimizer, range(3))
    assert all(
        not torch.equal(p, start[name]) for name, p in model.named_parameters() if p.ndim > 1
    )

    resumed = small_net().to(memory_format=torch.channels_last)
    resumed.load_state_dict(model.state_dict())
    second = make(resumed)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, range(3, 6))
    train(resumed, second, range(3, 6))
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def load(path: Path) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    node = OmegaConf.to_container(OmegaConf.load(path))
    return get_method(node.pop("_target_")), node


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_choice_trains_and_resumes_to_the_bit(path):
    target, node = load(path)
    layer_decay = node.pop("layer_decay")
    assert layer_decay is None
    assert node.keys() <= inspect.signature(target).parameters.keys()

    def make(model: nn.Module) -> torch.optim.Optimizer:
        groups = param_groups(model, weight_decay=node["weight_decay"], lr=node["lr"])
        return target(params=groups, **node)

    check_round_trip(make)


@pytest.mark.parametrize("name", ["lion", "muon", "adamp", "lookahead_adamw", "SGDW"])
def test_optimizers_of_timm_train_and_resume_to_the_bit(name):
    check_round_trip(
        lambda model: create_optimizer(
            param_groups(model, weight_decay=0.01, lr=0.01), name, lr=0.01
        )
    )


def test_groups_keep_their_lr_and_weight_decay():
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 0.5, "weight_decay": 0.25}]
    optimizer = create_optimizer(groups, "lamb", lr=0.1, weight_decay=0.1)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (
        0.5,
        0.25,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lamp", r"^optim\.name: timm has no optimizer 'lamp'; did you mean lamb"),
        ("lookahead_adamx", r"^optim\.name: timm has no optimizer 'lookahead_adamx'"),
        ("q", r"^optim\.name: timm has no optimizer 'q'; it has .*\badamw\b"),
        ("adahessian", r"^optim\.name: 'adahessian' needs second derivatives"),
        pytest.param(
            "bnbadam",
            r"^optim\.name: cannot use 'bnbadam' here \(.*bitsandbytes",
            marks=pytest.mark.skipif(
                torch.cuda.is_available(), reason="bitsandbytes may be usable with CUDA"
            ),
        ),
    ],
)
def test_unusable_names_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        create_optimizer([nn.Parameter(torch.ones(2))], name, lr=0.1)
