"""The training loop: it learns, counts updates, and stops at a loss that is not finite."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch

from tests.conftest import Compose
from visionsweep.data.batches import Normalization
from visionsweep.errors import TrainingError
from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.description import resolved_config
from visionsweep.training.ema import EMA
from visionsweep.training.evaluation import evaluate
from visionsweep.training.loop import EpochResult, Interrupted, add_grad_norm, fit


def make_parts(compose: Compose, *overrides: str) -> RunParts:
    return assemble(resolved_config(compose(*overrides)), keep_dataset=True)


def train(parts: RunParts, **settings: Any) -> list[EpochResult]:
    """Train to the end; return the result of each epoch."""
    results: list[EpochResult] = []

    def on_epoch_end(result: EpochResult) -> bool:
        results.append(result)
        return False

    changed = replace(parts.settings, **settings)
    fit(parts.state, parts.train, parts.val, changed, on_epoch_end=on_epoch_end)
    return results


def test_ten_images_are_memorized(compose: Compose) -> None:
    parts = make_parts(compose, "trainer.batch_size=5", "trainer.epochs=40", "scheduler=none")
    parts.train.indices = parts.train.indices[:10]
    parts.val.indices = parts.train.indices
    results = train(parts)
    assert results[-1].metrics["val/accuracy"] == 1.0
    assert results[-1].metrics["val/loss"] < 0.05


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "updates"), [(32, 1, 45), (32, 4, 12), (100, 3, 5)]
)
def test_updates_include_the_uneven_tail(
    compose: Compose, batch_size: int, accumulate: int, updates: int
) -> None:
    # 1,438 training images
    overrides = [
        f"trainer.batch_size={batch_size}",
        f"trainer.accumulate={accumulate}",
        "trainer.epochs=1",
    ]
    parts = make_parts(compose, *overrides)
    train(parts)
    assert parts.state.step == updates
    assert parts.state.scheduler.state_dict()["last_epoch"] == updates


def test_each_epoch_has_every_image_once_in_a_new_order(compose: Compose) -> None:
    batches = make_parts(compose).train
    first, second = batches.order(0), batches.order(1)
    assert sorted(first.tolist()) == sorted(batches.indices.tolist())
    assert sorted(second.tolist()) == sorted(batches.indices.tolist())
    assert first.tolist() != second.tolist()
    assert first.tolist() == batches.order(0).tolist()


def test_an_epoch_can_start_at_any_update(compose: Compose) -> None:
    train = make_parts(compose, "augment=mixup").train
    whole = list(train.updates(3))
    for start in (1, 17, 44):
        rest = list(train.updates(3, start=start))
        assert len(rest) == len(whole) - start
        for (a,), (b,) in zip(whole[start:], rest, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.targets, b.targets)


def test_augmentation_is_not_applied_to_validation(compose: Compose) -> None:
    parts = make_parts(compose, "augment=strong")
    batch = next(iter(parts.val))
    rows = parts.val.indices[: len(batch.images)]
    mean, std = (torch.tensor(parts.inference[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    expected = (parts.dataset.train.images[rows] / 255 - mean) / std
    torch.testing.assert_close(batch.images, expected, rtol=1e-5, atol=1e-5)


def test_evaluation_equals_scikit_learn_on_the_whole_split(compose: Compose) -> None:
    parts = make_parts(compose, "trainer.epochs=1", "trainer.eval_batch_size=100")
    train(parts)
    state, settings = parts.state, parts.settings
    evaluation = evaluate(state.model, state.loss, parts.val, settings, keep_logits=True)
    with torch.no_grad():
        batches = list(parts.val)
        logits = torch.cat([state.model(batch.images) for batch in batches])
    targets = parts.dataset.train.targets[parts.val_indices]
    assert torch.equal(torch.cat([batch.targets for batch in batches]), targets)
    assert evaluation.logits is not None
    assert torch.equal(evaluation.logits, logits)
    preds, labels = logits.argmax(1).numpy(), range(10)
    np.testing.assert_array_equal(
        sklearn.metrics.confusion_matrix(targets, preds, labels=labels), evaluation.matrix
    )
    metrics = evaluation.metrics(settings, "val")
    f1 = sklearn.metrics.f1_score(targets, preds, average="macro", labels=labels, zero_division=0)
    assert metrics["val/f1_macro"] == pytest.approx(f1, abs=1e-12)
    loss = float(torch.nn.functional.cross_entropy(logits, targets))
    assert metrics["val/loss"] == pytest.approx(loss, rel=1e-6)
    top5 = sklearn.metrics.top_k_accuracy_score(targets, logits.numpy(), k=5, labels=list(labels))
    assert metrics["val/top5_accuracy"] == pytest.approx(top5, abs=1e-12)
    assert evaluate(state.model, state.loss, parts.val, settings).logits is None


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_the_gradient_norm_is_numpys_mean_of_every_tenth_update(
    compose: Compose, clip_norm: float | None
) -> None:
    """Before clipping."""
    overrides = ["trainer.batch_size=60", "trainer.accumulate=2", "trainer.epochs=1"]
    parts = make_parts(compose, *overrides)
    norms: list[float] = []
    parameters = list(parts.state.model.parameters())

    class Noting:
        """Stands where gradients are unscaled: before they are clipped."""

        def __init__(self, scaler: torch.amp.GradScaler) -> None:
            self.scaler = scaler

        def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
            gradients = [p.grad.double().numpy().ravel() for p in parameters if p.grad is not None]
            norms.append(float(np.sqrt((np.concatenate(gradients) ** 2).sum())))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.scaler, name)

    parts.state.scaler = Noting(parts.state.scaler)  # type: ignore[assignment]
    results = train(parts, clip_norm=clip_norm)
    # 1,438 images: 24 micro-batches, 12 updates; the first and the eleventh are measured.
    assert len(norms) == 12
    assert results[0].metrics["train/grad_norm"] == pytest.approx(np.mean(norms[::10]), rel=1e-5)


def test_an_overflowed_update_has_no_gradient_norm(compose: Compose) -> None:
    state = make_parts(compose).state
    for norm in (1.0, math.inf, 2.0, math.nan):
        add_grad_norm(state, torch.tensor(norm))
    assert state.grad_norm() == 1.5


def test_a_nan_loss_names_epoch_step_and_lr(compose: Compose) -> None:
    parts = make_parts(compose, "scheduler=none", "optim.lr=0.125")
    calls = 0
    forward = parts.state.model.forward

    def poisoned(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        logits: torch.Tensor = forward(images)
        return logits * math.nan if calls == 7 else logits

    parts.state.model.forward = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"loss is nan at epoch 1, step 7 \(lr=0\.125\)"):
        train(parts)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_prediction_that_is_not_finite_fails_the_run(compose: Compose, value: float) -> None:
    """Its argmax is a class like any other, and the loss of the epoch before it was finite."""
    parts = make_parts(compose, "trainer.batch_size=500")
    forward = parts.state.model.forward

    def poisoned(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = forward(images)
        if not parts.state.model.training:
            logits[3, 2] = value
        return logits

    parts.state.model.forward = poisoned  # type: ignore[method-assign]
    message = "val at epoch 1: the predictions for 1 of 359 images are not finite; try a lower"
    with pytest.raises(TrainingError, match=message):
        train(parts)
    with pytest.raises(TrainingError, match="test: the predictions for 1 of 359 images"):
        evaluate(parts.state.model, parts.state.loss, parts.val, parts.settings, where="test")


def test_the_shown_learning_rate_is_the_one_that_the_epoch_used(compose: Compose) -> None:
    step = ["scheduler=step", "scheduler.step_epochs=2", "scheduler.gamma=0.5", "optim.lr=0.01"]
    parts = make_parts(compose, *step, "trainer.epochs=4", "trainer.batch_size=500")
    shown = [result.metrics["train/lr"] for result in train(parts)]
    assert shown == pytest.approx([0.01, 0.01, 0.005, 0.005])


def test_the_callback_can_end_the_run(compose: Compose) -> None:
    parts = make_parts(compose, "trainer.epochs=9", "trainer.batch_size=500")
    epochs: list[int] = []

    def on_epoch_end(result: EpochResult) -> bool:
        epochs.append(result.epoch)
        return result.epoch == 2

    fit(parts.state, parts.train, parts.val, parts.settings, on_epoch_end=on_epoch_end)
    assert epochs == [1, 2]


def test_a_stop_comes_after_the_update_under_way(compose: Compose) -> None:
    parts = make_parts(compose, "trainer.accumulate=4")
    with pytest.raises(Interrupted):
        fit(
            parts.state,
            parts.train,
            parts.val,
            parts.settings,
            on_epoch_end=lambda _: False,
            should_stop=lambda: parts.state.step == 3,
        )
    assert (parts.state.epoch, parts.state.step) == (0, 3)


def test_ema_follows_its_formula() -> None:
    model = torch.nn.BatchNorm1d(2)
    ema = EMA(model, decay=0.9)
    expected = model.weight.detach().numpy().astype(np.float64).copy()
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step % 7))
        model.num_batches_tracked.fill_(step)
        ema.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(step % 7)
    np.testing.assert_allclose(ema.model.weight.numpy(), expected, rtol=1e-5)
    assert int(ema.model.num_batches_tracked) == 199
    assert not ema.model.weight.requires_grad


def test_normalization_is_numpys_mean_and_std() -> None:
    images = torch.randint(
        0, 256, (5000, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    rows = torch.arange(0, 5000, 2)
    measured = Normalization.of(images, rows)
    pixels = images[rows].numpy().astype(np.float64) / 255
    np.testing.assert_allclose(measured.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(measured.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)


def test_a_constant_image_is_normalized_without_a_division_by_zero() -> None:
    measured = Normalization.of(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8), torch.arange(3))
    assert measured.std == (1 / 255,)
