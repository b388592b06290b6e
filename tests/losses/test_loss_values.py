"""Each loss and its gradient against a NumPy float64 formula; special cases against torch, timm."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.loss import AsymmetricLossSingleLabel, PolyCrossEntropy
from torch.nn import functional as F

from visionsweep.losses.asymmetric import AsymmetricLoss
from visionsweep.losses.base import Loss
from visionsweep.losses.ce_f1 import CrossEntropyF1Loss
from visionsweep.losses.cross_entropy import CrossEntropyLoss
from visionsweep.losses.f1 import SoftF1Loss
from visionsweep.losses.focal import FocalLoss
from visionsweep.losses.label_smoothing import LabelSmoothingLoss
from visionsweep.losses.logit_adjusted import LogitAdjustedLoss
from visionsweep.losses.poly import PolyLoss

Array = NDArray[np.float64]

N, K = 12, 5
COUNTS = torch.tensor([40, 7, 19, 3, 11])
# Exact in float32, so that a float64 formula can be met to float64 precision.
WEIGHTS = [0.5, 2.0, 1.0, 1.25, 0.25]


def numpy_probs(logits: Array) -> Array:
    e = np.exp(logits)
    return e / e.sum(axis=1, keepdims=True)


# Formulas of the loss of a sample of class k, as loops over the definition, for weights w.


def cross_entropy(p: Array, k: int, w: Array) -> float:
    return -w[k] * np.log(p[k])


def label_smoothing(p: Array, k: int, w: Array) -> float:
    return 0.8 * -w[k] * np.log(p[k]) + 0.2 / K * sum(-w[c] * np.log(p[c]) for c in range(K))


def focal(p: Array, k: int, w: Array) -> float:
    return -w[k] * (1 - p[k]) ** 1.5 * np.log(p[k])


def poly(p: Array, k: int, w: Array) -> float:
    return w[k] * (-np.log(p[k]) + 2 * (1 - p[k]))


def asymmetric(p: Array, k: int, w: Array) -> float:
    total = 0.0
    for c in range(K):
        target = (0.9 if c == k else 0.0) + 0.1 / K
        focus = (1 - p[c]) ** 0.5 if c == k else p[c] ** 3
        total -= target * w[c] * focus * np.log(p[c])
    return total


def logit_adjusted(p: Array, k: int, w: Array) -> float:
    prior = COUNTS.numpy() / COUNTS.sum().item()
    adjusted = p * prior**0.7
    return -w[k] * np.log(adjusted[k] / adjusted.sum())


def soft_f1(p: Array, t: Array) -> float:
    present = [c for c in range(K) if t[:, c].sum() > 0]
    scores = []
    for c in present:
        tp = sum(p[i, c] * t[i, c] for i in range(len(p)))
        fp = sum(p[i, c] * (1 - t[i, c]) for i in range(len(p)))
        fn = sum((1 - p[i, c]) * t[i, c] for i in range(len(p)))
        scores.append(2 * tp / (2 * tp + fp + fn))
    absent = sum(p[:, c].sum() for c in range(K) if c not in present)
    return 1 - sum(scores) / len(present) + 0.5 * absent / len(p)


SAMPLE_LOSSES = [
    (lambda **kw: CrossEntropyLoss(**kw), cross_entropy),
    (lambda **kw: LabelSmoothingLoss(0.2, **kw), label_smoothing),
    (lambda **kw: FocalLoss(1.5, **kw), focal),
    (lambda **kw: PolyLoss(2.0, **kw), poly),
    (lambda **kw: AsymmetricLoss(0.5, 3.0, 0.1, **kw), asymmetric),
    (lambda **kw: LogitAdjustedLoss(0.7, **kw), logit_adjusted),
]


def random_batch(
    seed: int = 0, *, soft: bool = False, absent: int | None = None
) -> tuple[Array, Array]:
    """Return (N, K) logits and (N, K) targets, one-hot unless soft, without class `absent`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, K)) * 2
    targets = rng.dirichlet(np.full(K, 0.5), size=N) if soft else np.eye(K)[rng.integers(0, K, N)]
    if absent is not None:
        targets[:, absent] = 0
        targets[targets.sum(axis=1) == 0, (absent + 1) % K] = 1
        targets /= targets.sum(axis=1, keepdims=True)
    return logits, targets


def numpy_gradient(function, logits: Array) -> Array:
    """Return central differences of a scalar function of the logits."""
    gradient = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-5
        gradient[index] = (function(logits + step) - function(logits - step)) / 2e-5
    return gradient


def check_against_numpy(loss: Loss, formula, logits: Array, targets: Array) -> None:
    """Compare value and gradient; `formula` maps logits to a scalar."""
    z = torch.tensor(logits, requires_grad=True)
    is_hard = set(np.unique(targets)) <= {0.0, 1.0}
    t = torch.tensor(targets.argmax(axis=1)) if is_hard else torch.tensor(targets)
    value = loss.double()(z, t)
    value.backward()
    # A prior in float32 limits the logit-adjusted loss to 1e-7.
    np.testing.assert_allclose(value.item(), formula(logits), rtol=3e-7)
    np.testing.assert_allclose(
        z.grad.numpy(), numpy_gradient(formula, logits), rtol=2e-6, atol=1e-8
    )


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("weights", ["none", WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("build", "formula"), SAMPLE_LOSSES, ids=[f.__name__ for _, f in SAMPLE_LOSSES]
)
def test_sample_loss_matches_numpy(build, formula, weights, soft):
    logits, targets = random_batch(soft=soft)
    w = np.ones(K) if weights == "none" else np.array(weights)

    def whole(z: Array) -> float:
        p = numpy_probs(z)
        losses = sum(targets[i, k] * formula(p[i], k, w) for i in range(N) for k in range(K))
        return losses / (targets @ w).sum()

    check_against_numpy(build(class_weights=weights, class_counts=COUNTS), whole, logits, targets)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("absent", [None, 2])
def test_f1_matches_numpy(absent, soft):
    logits, targets = random_batch(1, soft=soft, absent=absent)
    assert (targets.sum(axis=0) == 0).sum() == (absent is not None)
    check_against_numpy(
        SoftF1Loss(absent_weight=0.5), lambda z: soft_f1(numpy_probs(z), targets), logits, targets
    )


def test_ce_f1_is_the_weighted_sum():
    logits, targets = random_batch(2)
    w = np.array(WEIGHTS)

    def whole(z: Array) -> float:
        p = numpy_probs(z)
        ce = (
            sum(cross_entropy(p[i], targets[i].argmax(), w) for i in range(N)) / (targets @ w).sum()
        )
        return 0.3 * ce + 0.7 * soft_f1(p, targets)

    loss = CrossEntropyF1Loss(
        0.3, 0.7, absent_weight=0.5, class_weights=WEIGHTS, class_counts=COUNTS
    )
    check_against_numpy(loss, whole, logits, targets)


def test_f1_of_a_perfect_batch_with_absent_classes_is_zero():
    targets = torch.arange(12)  # 12 of 18 classes, where a mean over all 18 would be 0.333
    logits = 100.0 * F.one_hot(targets, 18)
    assert SoftF1Loss()(logits, targets).item() == pytest.approx(0, abs=1e-6)


def test_f1_penalizes_probability_on_an_absent_class():
    targets = torch.tensor([0, 1, 0, 1])
    to_present = torch.tensor([[3.0, 3, -9], [0, 9, -9], [9, 0, -9], [0, 9, -9]])
    to_absent = torch.tensor([[3.0, -9, 3], [0, 9, -9], [9, 0, -9], [0, 9, -9]])
    loss, free = SoftF1Loss(), SoftF1Loss(absent_weight=0)
    assert loss(to_absent, targets) > loss(to_present, targets)
    assert free(to_absent, targets) < free(to_present, targets)


def test_f1_has_a_gradient_if_confidently_wrong():
    logits = torch.tensor([[12.0, 0.0], [0.0, 12.0]], requires_grad=True)
    SoftF1Loss()(logits, torch.tensor([1, 0])).backward()
    assert (logits.grad.abs() > 1e-7).all()


# torch and timm


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(32, K, generator=generator) * 3, torch.randint(K, (32,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weights", ["none", WEIGHTS], ids=["unweighted", "weighted"])
def test_label_smoothing_equals_torch(batch, weights, smoothing):
    logits, targets = batch
    weight = None if weights == "none" else torch.tensor(weights)
    expected = F.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing)
    ours = LabelSmoothingLoss(smoothing, weights, class_counts=COUNTS)(logits, targets)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    "build",
    [
        CrossEntropyLoss,
        lambda *a, **kw: FocalLoss(0.0, *a, **kw),
        lambda *a, **kw: PolyLoss(0.0, *a, **kw),
        lambda *a, **kw: LabelSmoothingLoss(0.0, *a, **kw),
        lambda *a, **kw: AsymmetricLoss(0.0, 4.0, 0.0, *a, **kw),
        lambda *a, **kw: LogitAdjustedLoss(0.0, *a, **kw),
        lambda *a, **kw: CrossEntropyF1Loss(1.0, 0.0, 1.0, *a, **kw),
    ],
)
@pytest.mark.parametrize("weights", ["none", WEIGHTS], ids=["unweighted", "weighted"])
def test_special_case_equals_cross_entropy_of_torch(build, weights, batch):
    logits, targets = batch
    weight = None if weights == "none" else torch.tensor(weights)
    ours = build(weights, class_counts=COUNTS)(logits, targets)
    torch.testing.assert_close(
        ours, F.cross_entropy(logits, targets, weight=weight), rtol=1e-6, atol=1e-7
    )


def test_unweighted_soft_targets_equal_torch(batch):
    logits, _ = batch
    targets = torch.rand(32, K, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    torch.testing.assert_close(
        CrossEntropyLoss()(logits, targets), F.cross_entropy(logits, targets)
    )


def test_asymmetric_equals_timm(batch):
    for gamma_pos, gamma_neg, smoothing in [(1, 4, 0.1), (0, 2, 0.3), (3, 0.5, 0.05)]:
        expected = AsymmetricLossSingleLabel(gamma_pos, gamma_neg, smoothing)(*batch)
        torch.testing.assert_close(
            AsymmetricLoss(gamma_pos, gamma_neg, smoothing)(*batch), expected
        )


def test_asymmetric_without_focus_equals_label_smoothing(batch):
    ours = AsymmetricLoss(0.0, 0.0, 0.2, WEIGHTS, class_counts=COUNTS)(*batch)
    torch.testing.assert_close(ours, LabelSmoothingLoss(0.2, WEIGHTS, class_counts=COUNTS)(*batch))


def test_poly_equals_timm(batch):
    logits, targets = batch
    soft = torch.rand(32, K, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    for t in (targets, soft):
        torch.testing.assert_close(PolyLoss(2.0)(logits, t), PolyCrossEntropy(2.0)(logits, t))


def test_logit_adjustment_counts_an_absent_class_as_one():
    logits = torch.zeros(1, 3, dtype=torch.float64)
    loss = LogitAdjustedLoss(class_counts=torch.tensor([0, 2, 5]))
    # The prior is 1/8, 2/8, 5/8, and at logits of zero the adjusted softmax is the prior.
    assert loss(logits, torch.tensor([0])).item() == pytest.approx(np.log(8))
    assert loss(logits, torch.tensor([2])).item() == pytest.approx(np.log(8 / 5))


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_focused_losses_have_a_finite_gradient_at_certainty(gamma, dtype):
    for loss in (FocalLoss(gamma), AsymmetricLoss(gamma, gamma, 0.1)):
        logits = torch.tensor(
            [[400.0, 0.0, -400.0], [30.0, 0.0, 15.0]], dtype=dtype, requires_grad=True
        )
        value = loss(logits, torch.tensor([0, 2]))
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_logits_are_summed_in_float32(dtype, batch):
    logits, targets = batch[0].to(dtype), batch[1]
    for loss in (CrossEntropyLoss(), SoftF1Loss(), LogitAdjustedLoss(class_counts=COUNTS)):
        value = loss(logits, targets)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(logits.float(), targets))


def test_weights_are_float32_under_autocast():
    targets = torch.rand(32, K, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    loss = CrossEntropyLoss([0.1, 0.7, 1.3, 2.9, 1.1], class_counts=COUNTS)
    expected = loss.sample_weights(targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss.sample_weights(targets), expected, rtol=0, atol=0)
