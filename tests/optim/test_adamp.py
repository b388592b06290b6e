"""Our AdamP against the package and against timm, in both memory formats."""

import adamp
import pytest
import torch
from timm.optim.adamp import AdamP as TimmAdamP
from torch import nn
from torch.nn import functional as F

from visionsweep.optim.adamp import AdamP

SETTINGS = {"lr": 0.01, "weight_decay": 0.05}


def train(optimizer_class, **kwargs) -> nn.Module:
    """Return a small net after 10 updates."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    optimizer = optimizer_class(model.parameters(), **SETTINGS, **kwargs)
    for _ in range(10):
        images, targets = torch.randn(8, 3, 8, 8), torch.randint(4, (8,))
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("reference", [adamp.AdamP, TimmAdamP], ids=["adamp", "timm"])
def test_equals_the_reference_to_the_bit(reference, nesterov):
    ours = train(AdamP, nesterov=nesterov)
    theirs = train(reference, nesterov=nesterov)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_projection_is_exercised():
    ours = train(AdamP)
    unprojected = train(AdamP, delta=0.0)
    assert any(
        not torch.equal(p, q)
        for p, q in zip(ours.parameters(), unprojected.parameters(), strict=True)
    )


def step_on_given_gradients(optimizer_class, memory_format) -> torch.Tensor:
    """Return a convolution weight after 20 updates whose gradients ignore the memory format."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(8, 4, 3, 3, generator=generator)
    weight = nn.Parameter(start.to(memory_format=memory_format))
    optimizer = optimizer_class([weight], **SETTINGS)
    for _ in range(20):
        gradient = torch.randn(8, 4, 3, 3, generator=generator)
        weight.grad = gradient.to(memory_format=memory_format)
        optimizer.step()
    return weight.detach()


def test_channels_last_equals_contiguous():
    contiguous = step_on_given_gradients(adamp.AdamP, torch.contiguous_format)
    channels_last = step_on_given_gradients(AdamP, torch.channels_last)
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last, contiguous.to(memory_format=torch.channels_last))
    with pytest.raises(RuntimeError, match="view"):  # what the subclass is for
        step_on_given_gradients(adamp.AdamP, torch.channels_last)
