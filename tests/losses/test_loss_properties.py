"""Properties of every loss: additive, finite, not negative, invariant to order and shift."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from visionsweep.errors import ConfigError
from visionsweep.losses.asymmetric import AsymmetricLoss
from visionsweep.losses.ce_f1 import CrossEntropyF1Loss
from visionsweep.losses.cross_entropy import CrossEntropyLoss
from visionsweep.losses.f1 import SoftF1Loss
from visionsweep.losses.focal import FocalLoss
from visionsweep.losses.label_smoothing import LabelSmoothingLoss
from visionsweep.losses.logit_adjusted import LogitAdjustedLoss
from visionsweep.losses.poly import PolyLoss

K = 6
WEIGHTED = {"class_weights": "balanced", "class_counts": torch.tensor([90, 5, 30, 0, 12, 61])}
LOSSES = {
    "cross_entropy": CrossEntropyLoss(),
    "weighted": CrossEntropyLoss(**WEIGHTED),
    "label_smoothing": LabelSmoothingLoss(0.1, **WEIGHTED),
    "focal": FocalLoss(2.0, **WEIGHTED),
    "focal_half": FocalLoss(0.5),
    "poly": PolyLoss(-1.0, **WEIGHTED),
    "asymmetric": AsymmetricLoss(**WEIGHTED),
    "logit_adjusted": LogitAdjustedLoss(**WEIGHTED),
    "f1": SoftF1Loss(),
    "ce_f1": CrossEntropyF1Loss(**WEIGHTED),
}
for module in LOSSES.values():
    module.double()  # the weights too: in float32 their sum depends on the order by 1e-7
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def batch(seed: int, size: int = 23, *, soft: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, K, generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(K, (size,), generator=generator)
    if soft:
        share = torch.rand(size, 1, generator=generator, dtype=torch.float64)
        one_hot = F.one_hot(targets, K).double()
        return logits, share * one_hot + (1 - share) * one_hot.roll(1, dims=0)
    return logits, targets


@every_loss
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_statistics_of_uneven_chunks_add_up(loss, soft):
    logits, targets = batch(0, soft=soft)
    chunks = zip(logits.split([8, 8, 6, 1]), targets.split([8, 8, 6, 1]), strict=True)
    total = sum(loss.statistics(z, t) for z, t in chunks)
    torch.testing.assert_close(loss.value(total), loss(logits, targets), rtol=1e-12, atol=1e-12)


@every_loss
def test_a_one_hot_row_is_its_class(loss):
    logits, targets = batch(1)
    one_hot = F.one_hot(targets, K).double()
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, targets))
    torch.testing.assert_close(loss.statistics(logits, one_hot), loss.statistics(logits, targets))


@every_loss
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_gradcheck(loss, soft):
    logits, targets = batch(2, size=5, soft=soft)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), logits.requires_grad_())


@every_loss
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1.0, 30.0, 500.0]),
)
@settings(max_examples=25, deadline=None)
def test_finite_and_never_negative_also_in_float32(loss, seed, size, scale):
    logits, targets = batch(seed, size)
    loss = copy.deepcopy(loss).float()
    logits = (scale * logits).float().requires_grad_()
    value = loss(logits, targets)
    value.backward()
    assert value.isfinite()
    assert value >= -1e-6
    assert logits.grad.isfinite().all()


@every_loss
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), soft=st.booleans())
@settings(max_examples=25, deadline=None)
def test_order_and_shift_do_not_matter(loss, seed, shift, soft):
    logits, targets = batch(seed, soft=soft)
    value = loss(logits, targets)
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(logits[order], targets[order]), value)
    torch.testing.assert_close(loss(logits + shift, targets), value)


def test_weights_and_prior_are_buffers_that_are_not_saved():
    loss = LogitAdjustedLoss(**WEIGHTED)
    assert {name for name, _ in loss.named_buffers()} == {"class_weights", "log_prior"}
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FocalLoss(-1), r"gamma: expected a number >= 0, .*got -1"),
        (lambda: FocalLoss(float("nan")), r"gamma: .*got nan"),
        (lambda: LabelSmoothingLoss(1.0), r"smoothing: expected a number in \[0, 1\).*got 1\.0"),
        (lambda: LabelSmoothingLoss(-0.1), r"smoothing: .*got -0\.1"),
        (lambda: PolyLoss(-1.5), r"epsilon: expected a number >= -1, .*got -1\.5"),
        (lambda: AsymmetricLoss(gamma_pos=-1), r"gamma_pos: .*got -1"),
        (lambda: AsymmetricLoss(gamma_neg=float("inf")), r"gamma_neg: .*got inf"),
        (lambda: AsymmetricLoss(smoothing=1), r"smoothing: .*got 1"),
        (lambda: LogitAdjustedLoss(-1.0, class_counts=torch.ones(2)), r"tau: .*got -1\.0"),
        (lambda: SoftF1Loss(-1), r"absent_weight: .*got -1"),
        (lambda: CrossEntropyF1Loss(-1), r"ce_weight: .*got -1"),
        (lambda: CrossEntropyF1Loss(f1_weight=float("nan")), r"f1_weight: .*got nan"),
        (lambda: CrossEntropyF1Loss(0, 0), r"ce_weight and loss\.f1_weight: .* got 0 and 0"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ConfigError, match=rf"^loss\.{message}"):
        build()
