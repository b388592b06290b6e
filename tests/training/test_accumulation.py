"""k micro-batches give the gradient of one large batch, for every loss, weighted and uneven too."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from visionsweep.config.build import build
from visionsweep.data.augment.mixing import CutMix, Mixup
from visionsweep.data.augment.pipeline import Pipeline, Step
from visionsweep.data.batches import Batch, Normalization, Placement, TrainBatches
from visionsweep.losses.base import Loss
from visionsweep.training.accumulation import backward

NUM_CLASSES = 6
COUNTS = torch.tensor([500, 200, 90, 40, 15, 3])
LOSSES = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))
TAKES_WEIGHTS = [path for path in LOSSES if "class_weights:" in path.read_text()]
CASES = [(path, "as configured") for path in LOSSES] + [
    (path, "balanced") for path in TAKES_WEIGHTS
]
SPLITS = {"uneven tail": [8, 8, 8, 2], "one image last": [8, 1]}


def make_loss(path: Path, weights: str) -> Loss:
    node = yaml.safe_load(path.read_text())
    if weights != "as configured":
        node["class_weights"] = weights
    loss: Loss = build(node, "loss", class_counts=COUNTS, num_classes=NUM_CLASSES)
    return loss


def make_model(
    *, normalization: Callable[[int], nn.Module] = lambda n: nn.GroupNorm(2, n)
) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        normalization(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(8 * 36, NUM_CLASSES),
    )


def make_targets(count: int, kind: str, generator: torch.Generator) -> Tensor:
    hard = torch.multinomial(COUNTS.double(), count, replacement=True, generator=generator)
    if kind == "hard":
        return hard
    other = torch.randint(NUM_CLASSES, (count,), generator=generator)
    share = torch.rand(count, 1, generator=generator)
    one_hot = torch.eye(NUM_CLASSES)
    return share * one_hot[hard] + (1 - share) * one_hot[other]


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("kind", ["hard", "mixup"])
@pytest.mark.parametrize(
    ("path", "weights"), CASES, ids=[f"{path.stem}, weights {w}" for path, w in CASES]
)
def test_micro_batches_give_the_gradient_of_the_large_batch(
    path: Path, weights: str, kind: str, sizes: list[int]
) -> None:
    loss = make_loss(path, weights)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(sum(sizes), 1, 8, 8, generator=generator)
    targets = make_targets(sum(sizes), kind, generator)

    # The reference is torch's own gradient of the loss of the one large batch.
    model = make_model()
    expected_loss = loss(model(images), targets)
    expected_loss.backward()
    expected = gradient(model)

    model = make_model()
    batches = [Batch(i, t) for i, t in zip(images.split(sizes), targets.split(sizes), strict=True)]
    statistics = backward(model, loss, batches, nullcontext, lambda value: value)

    assert float((gradient(model) - expected).norm() / expected.norm()) < 1e-5
    torch.testing.assert_close(loss.value(statistics), expected_loss.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mixing", [Mixup(1.0, NUM_CLASSES), CutMix(1.0, NUM_CLASSES)])
def test_mixed_micro_batches_give_the_gradient_of_the_large_batch(mixing: Step) -> None:
    """From the batches that training gets: 1 x 32, 4 x 8 and 32 x 1, weighted."""
    loss = make_loss(Path(__file__).parents[2] / "conf/loss/cross_entropy.yaml", "balanced")
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8, generator=generator)
    targets = make_targets(32, "hard", generator)
    normalization = Normalization((0.5,), (0.25,))
    gradients = []
    for accumulate in (1, 4, 32):
        train = TrainBatches(
            images,
            targets,
            32 // accumulate,
            Placement(normalization, torch.device("cpu"), torch.contiguous_format),
            indices=torch.arange(32),
            augment=Pipeline({"mixing": mixing}),
            seed=0,
            balanced=False,
            accumulate=accumulate,
        )
        model = make_model()
        (batches,) = train.updates(0)
        assert len(batches) == accumulate
        backward(model, loss, batches, nullcontext, lambda value: value)
        gradients.append(gradient(model))
    for other in gradients[1:]:
        assert float((other - gradients[0]).norm() / gradients[0].norm()) < 1e-5


def test_the_mean_of_means_differs() -> None:
    """The usual `loss / k` fails the test above by far, so the test can tell them apart."""
    loss = make_loss(Path(__file__).parents[2] / "conf/loss/cross_entropy.yaml", "balanced")
    generator = torch.Generator().manual_seed(1)
    images, targets = (
        torch.randn(26, 1, 8, 8, generator=generator),
        make_targets(26, "hard", generator),
    )
    model = make_model()
    loss(model(images), targets).backward()
    expected = gradient(model)
    model = make_model()
    for i, t in zip(images.split([8, 8, 8, 2]), targets.split([8, 8, 8, 2]), strict=True):
        (loss(model(i), t) / 4).backward()
    assert float((gradient(model) - expected).norm() / expected.norm()) > 0.1


def test_two_passes_leave_no_trace_of_the_first() -> None:
    """BatchNorm's running statistics and dropout's random numbers are those of a single pass."""
    loss = make_loss(Path(__file__).parents[2] / "conf/loss/f1.yaml", "as configured")
    generator = torch.Generator().manual_seed(2)
    images, targets = (
        torch.randn(16, 1, 8, 8, generator=generator),
        make_targets(16, "hard", generator),
    )

    def make() -> nn.Module:
        model = make_model(normalization=nn.BatchNorm2d)
        model[4] = nn.Dropout(0.5)
        return model.train()

    model = make()
    torch.manual_seed(3)
    with torch.no_grad():
        for part in images.split(8):
            model(part)
    drawn = torch.rand(1)
    expected = {name: buffer.clone() for name, buffer in model.named_buffers()}

    model = make()
    torch.manual_seed(3)
    batches = [Batch(i, t) for i, t in zip(images.split(8), targets.split(8), strict=True)]
    backward(model, loss, batches, nullcontext, lambda value: value)
    assert torch.equal(torch.rand(1), drawn)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, expected[name]), name


def test_batch_norm_is_the_documented_difference() -> None:
    """BatchNorm normalizes each micro-batch by itself, so here the gradients do differ."""
    loss = make_loss(Path(__file__).parents[2] / "conf/loss/cross_entropy.yaml", "as configured")
    generator = torch.Generator().manual_seed(4)
    images, targets = (
        torch.randn(32, 1, 8, 8, generator=generator),
        make_targets(32, "hard", generator),
    )
    gradients = []
    for size in (32, 8):
        model = make_model(normalization=nn.BatchNorm2d)
        batches = [
            Batch(i, t) for i, t in zip(images.split(size), targets.split(size), strict=True)
        ]
        backward(model, loss, batches, nullcontext, lambda value: value)
        gradients.append(gradient(model))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 1e-3
