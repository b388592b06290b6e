"""Parameter groups: which parameter decays, and at which lr."""

import pytest
import timm
import torch
from torch import nn

from visionsweep.errors import ConfigError
from visionsweep.optim.param_groups import param_groups


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def no_weight_decay(self) -> set[str]:
        return {"pos_*"}


def decay_by_name(model: nn.Module, groups: list[dict]) -> dict[str, float]:
    """Return the decay of each trained parameter; every one must be in exactly one group."""
    names = {id(p): name for name, p in model.named_parameters()}
    listed = [(names[id(p)], group["weight_decay"]) for group in groups for p in group["params"]]
    assert len(listed) == len(dict(listed))
    assert dict(listed).keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    return dict(listed)


def test_only_weights_decay():
    model = SmallNet()
    groups = param_groups(model, weight_decay=0.1, lr=0.5)
    assert decay_by_name(model, groups) == {
        "scale": 0.0,
        "pos_embed": 0.0,
        "conv.weight": 0.1,
        "conv.bias": 0.0,
        "bn.weight": 0.0,
        "bn.bias": 0.0,
        "fc.weight": 0.1,
        "fc.bias": 0.0,
    }
    assert [group["lr"] for group in groups] == [0.5, 0.5]


def test_a_bias_of_any_shape_does_not_decay():
    model = nn.Module()
    model.bias = nn.Parameter(torch.zeros(2, 3))
    model.weight = nn.Parameter(torch.zeros(2, 3))
    assert decay_by_name(model, param_groups(model, weight_decay=0.1, lr=1)) == {
        "bias": 0.0,
        "weight": 0.1,
    }


def test_without_decay_there_is_one_group():
    assert len(param_groups(SmallNet(), weight_decay=0.0, lr=0.1)) == 1


def test_groups_keep_the_order_of_the_model():
    groups = param_groups(SmallNet(), weight_decay=0.1, lr=1)
    assert [p.shape for p in groups[1]["params"]] == [(8, 3, 3, 3), (2, 8)]


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5)


def test_layer_decay_lowers_the_lr_from_the_head_down(vit):
    groups = param_groups(vit, weight_decay=0.1, lr=1.0, layer_decay=0.5)
    names = {id(p): name for name, p in vit.named_parameters()}
    lr = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert lr["head.weight"] == 1.0
    # timm's order: patch embedding, the three blocks, the head with the last norm.
    assert [lr[f"blocks.{i}.mlp.fc1.weight"] for i in (2, 1, 0)] == [0.5, 0.25, 0.125]
    assert lr["patch_embed.proj.weight"] == 0.0625
    assert all("lr_scale" not in group for group in groups)


@pytest.mark.parametrize("name", ["vit", "resnet10t"])
def test_layer_decay_keeps_the_rule_of_weight_decay(name, vit):
    model = vit if name == "vit" else timm.create_model(name, num_classes=5)
    plain = decay_by_name(model, param_groups(model, weight_decay=0.1, lr=1.0))
    layered = decay_by_name(model, param_groups(model, weight_decay=0.1, lr=1.0, layer_decay=0.7))
    assert layered == plain
    if name == "vit":
        assert plain["pos_embed"] == plain["cls_token"] == plain["blocks.0.norm1.weight"] == 0.0
    assert 0.1 in plain.values()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layer_decay": 0.7}, r"layer_decay: got 0\.7, but SmallNet does not name its layers"),
        ({"layer_decay": 0.0}, r"layer_decay: expected null or .* \(0, 1\].*got 0\.0"),
        ({"layer_decay": 1.5}, r"layer_decay: .*got 1\.5"),
        ({"lr": -1.0}, r"lr: expected a finite number > 0, got -1\.0"),
        ({"lr": 0.0}, r"lr: .*got 0\.0"),
        ({"lr": float("nan")}, r"lr: .*got nan"),
        ({"weight_decay": -0.1}, r"weight_decay: expected a finite number >= 0, got -0\.1"),
    ],
)
def test_wrong_settings_are_refused(kwargs, message):
    with pytest.raises(ConfigError, match=rf"^optim\.{message}"):
        param_groups(SmallNet(), **({"weight_decay": 0.1, "lr": 0.1} | kwargs))
