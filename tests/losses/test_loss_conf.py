"""Every conf/loss choice is a loss that trains, and lists what its class can take of the shared settings."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from visionsweep.losses.base import Loss

CHOICES = sorted((Path(__file__).parents[2] / "conf/loss").glob("*.yaml"))
ISSUED = [
    "cross_entropy",
    "label_smoothing",
    "focal",
    "f1",
    "ce_f1",
    "class_balanced",
    "logit_adjusted",
    "poly",
    "asymmetric",
]


def test_all_choices_exist():
    assert set(ISSUED) <= {path.stem for path in CHOICES}


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_choice_builds_and_has_a_gradient(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    loss_class = get_class(node.pop("_target_"))
    parameters = inspect.signature(loss_class).parameters
    assert node.keys() <= parameters.keys()
    assert ("class_weights" in parameters) == ("class_weights" in node)
    assert ("beta" in parameters) == ("beta" in node)
    if "class_counts" in parameters:
        node["class_counts"] = torch.tensor([5, 2, 9])
    loss = loss_class(**node)
    assert isinstance(loss, Loss)
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 1.0]], requires_grad=True)
    loss(logits, torch.tensor([1, 0])).backward()
    assert (logits.grad[0, 1], logits.grad[1, 0]) < (0, 0)  # towards the targets
