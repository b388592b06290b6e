"""The loop itself: it learns, it counts updates, it stops at a loss that is no number."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch

from tests.conftest import Compose
from visionsweep.data.batches import Normalization
from visionsweep.errors import TrainingError
from visionsweep.run import run
from visionsweep.run.assemble import assemble
from visionsweep.run.description import resolved_config
from visionsweep.training.ema import EMA
from visionsweep.training.loop import (
    EpochResult,
    Interrupted,
    add_grad_norm,
    evaluate,
    fit,
    predict_probabilities,
)


def test_ten_images_are_memorized(compose: Compose) -> None:
    experiment = assemble(
        resolved_config(compose("trainer.batch_size=5", "trainer.epochs=40", "scheduler=none"))
    )
    experiment.train.indices = experiment.train.indices[:10]
    experiment.val.indices = experiment.train.indices
    results: list[EpochResult] = []
    fit(
        experiment.state,
        experiment.train,
        experiment.val,
        experiment.settings,
        on_epoch_end=lambda result: results.append(result),
    )
    assert results[-1].metrics["val/accuracy"] == 1.0
    assert results[-1].metrics["val/loss"] < 0.05


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "updates"), [(32, 1, 45), (32, 4, 12), (100, 3, 5)]
)
def test_updates_are_counted_with_the_uneven_tail(
    compose: Compose, batch_size: int, accumulate: int, updates: int
) -> None:
    # 1,438 training images
    overrides = [
        f"trainer.batch_size={batch_size}",
        f"trainer.accumulate={accumulate}",
        "trainer.epochs=1",
    ]
    experiment = assemble(resolved_config(compose(*overrides)))
    fit(
        experiment.state,
        experiment.train,
        experiment.val,
        experiment.settings,
        on_epoch_end=lambda _: None,
    )
    assert experiment.state.step == updates
    assert experiment.state.scheduler.state_dict()["last_epoch"] == updates


def test_the_epoch_sees_each_image_once_in_another_order_each_time(compose: Compose) -> None:
    train = assemble(resolved_config(compose())).train
    first, second = train.order(0), train.order(1)
    assert sorted(first.tolist()) == sorted(train.indices.tolist())
    assert sorted(second.tolist()) == sorted(train.indices.tolist())
    assert first.tolist() != second.tolist()
    assert first.tolist() == train.order(0).tolist()


def test_an_epoch_can_be_entered_anywhere(compose: Compose) -> None:
    train = assemble(resolved_config(compose("augment=mixup"))).train
    whole = list(train.epoch(3))
    for start in (1, 17, 44):
        rest = list(train.epoch(3, start=start))
        assert len(rest) == len(whole) - start
        assert all(
            torch.equal(a.images, b.images) for a, b in zip(whole[start:], rest, strict=True)
        )
        assert all(
            torch.equal(a.targets, b.targets) for a, b in zip(whole[start:], rest, strict=True)
        )


def test_augmentation_is_not_applied_to_validation(compose: Compose) -> None:
    experiment = assemble(resolved_config(compose("augment=strong")))
    batch = next(iter(experiment.val))
    rows = experiment.val.indices[: len(batch.images)]
    mean, std = (
        torch.tensor(experiment.inference[key]).view(1, -1, 1, 1) for key in ("mean", "std")
    )
    expected = (experiment.dataset.train.images[rows] / 255 - mean) / std
    torch.testing.assert_close(batch.images, expected, rtol=1e-5, atol=1e-5)


def test_evaluation_equals_scikit_learn_on_the_whole_set(compose: Compose) -> None:
    run(compose("name=a", "trainer.epochs=1"))
    experiment = assemble(resolved_config(compose("name=a", "trainer.epochs=1")))
    evaluation = evaluate(
        experiment.state.model, experiment.state.loss, experiment.val, experiment.settings
    )
    logits, targets = [], []
    with torch.no_grad():
        for batch in experiment.val:
            logits.append(experiment.state.model(batch.images))
            targets.append(batch.targets)
    scores, truth = torch.cat(logits), torch.cat(targets)
    preds = scores.argmax(1).numpy()
    metrics = evaluation.metrics(experiment.settings, "val")
    labels = range(10)
    f1 = sklearn.metrics.f1_score(truth, preds, average="macro", labels=labels, zero_division=0)
    assert metrics["val/f1_macro"] == pytest.approx(f1, abs=1e-12)
    assert metrics["val/loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(scores, truth)), rel=1e-6
    )
    top5 = sklearn.metrics.top_k_accuracy_score(truth, scores.numpy(), k=5, labels=list(labels))
    assert metrics["val/top5_accuracy"] == pytest.approx(top5, abs=1e-12)


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_the_gradient_norm_is_numpys_mean_over_every_tenth_update(
    compose: Compose, clip_norm: float | None
) -> None:
    """Before clipping."""
    overrides = ["trainer.batch_size=60", "trainer.accumulate=2", "trainer.epochs=1"]
    experiment = assemble(resolved_config(compose(*overrides)))
    settings = replace(experiment.settings, clip_norm=clip_norm)
    norms: list[float] = []
    parameters = list(experiment.state.model.parameters())

    class Noting:
        """Stands where gradients are unscaled: before they are clipped."""

        def __init__(self, scaler: torch.amp.GradScaler) -> None:
            self.scaler = scaler

        def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
            gradients = [p.grad.double().numpy().ravel() for p in parameters if p.grad is not None]
            norms.append(float(np.sqrt((np.concatenate(gradients) ** 2).sum())))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.scaler, name)

    experiment.state.scaler = Noting(experiment.state.scaler)  # type: ignore[assignment]
    results: list[EpochResult] = []
    fit(
        experiment.state,
        experiment.train,
        experiment.val,
        settings,
        on_epoch_end=lambda r: results.append(r),
    )
    assert (
        len(norms) == 12
    )  # 1,438 images: 24 micro-batches, 12 updates, of which the first and the eleventh count
    assert results[0].metrics["train/grad_norm"] == pytest.approx(np.mean(norms[::10]), rel=1e-5)


def test_an_update_that_overflowed_has_no_gradient_norm(compose: Compose) -> None:
    state = assemble(resolved_config(compose())).state
    for norm in (1.0, math.inf, 2.0, math.nan):
        add_grad_norm(state, torch.tensor(norm))
    assert state.grad_norm() == 1.5


def test_probabilities_are_those_of_the_logits_in_the_order_of_the_images(compose: Compose) -> None:
    experiment = assemble(resolved_config(compose("trainer.eval_batch_size=100")))
    model = experiment.state.evaluated_model()
    found = predict_probabilities(model, experiment.val, experiment.settings)
    assert found.shape == (359, 10)
    matrix = evaluate(model, experiment.state.loss, experiment.val, experiment.settings).matrix
    targets = experiment.dataset.train.targets[experiment.val_indices]
    np.testing.assert_array_equal(
        sklearn.metrics.confusion_matrix(targets, found.argmax(1), labels=range(10)), matrix.numpy()
    )
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_a_nan_loss_names_epoch_step_and_lr(compose: Compose) -> None:
    experiment = assemble(resolved_config(compose("scheduler=none", "optim.lr=0.125")))
    calls = 0
    forward = experiment.state.model.forward

    def poisoned(images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        logits: torch.Tensor = forward(images)
        return logits * math.nan if calls == 7 else logits

    experiment.state.model.forward = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"loss is nan at epoch 1, step 7 \(lr=0\.125\)"):
        fit(
            experiment.state,
            experiment.train,
            experiment.val,
            experiment.settings,
            on_epoch_end=lambda _: None,
        )


def test_a_reason_of_the_callback_ends_the_run(compose: Compose) -> None:
    experiment = assemble(resolved_config(compose("trainer.epochs=9")))
    epochs: list[int] = []

    def on_epoch_end(result: EpochResult) -> str | None:
        epochs.append(result.epoch)
        return "enough" if result.epoch == 2 else None

    reason = fit(
        experiment.state,
        experiment.train,
        experiment.val,
        experiment.settings,
        on_epoch_end=on_epoch_end,
    )
    assert reason == "enough"
    assert epochs == [1, 2]


def test_a_stop_comes_after_the_update_under_way(compose: Compose) -> None:
    experiment = assemble(resolved_config(compose("trainer.accumulate=4")))
    with pytest.raises(Interrupted):
        fit(
            experiment.state,
            experiment.train,
            experiment.val,
            experiment.settings,
            on_epoch_end=lambda _: None,
            should_stop=lambda: experiment.state.step == 3,
        )
    assert (experiment.state.epoch, experiment.state.step, experiment.state.batch) == (0, 3, 12)


def test_early_stopping_ends_a_run_that_gets_no_better(compose: Compose) -> None:
    overrides = ["scheduler=none", "optim=sgd", "optim.lr=1e-12", "trainer.epochs=9"]
    run(
        compose(
            *overrides,
            "trainer.early_stopping.patience=2",
            "trainer.early_stopping.min_delta=0.5",
            "name=a",
        )
    )
    assert json.loads(Path("outputs/a/result.json").read_text())["epochs"] == 3


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


def test_the_objective_is_read_everywhere(compose: Compose) -> None:
    """Minimizing the loss: the best epoch is the one of the lowest, and it is what a run returns."""
    value = run(
        compose(
            "objective.metric=val/loss",
            "objective.direction=minimize",
            "trainer.epochs=3",
            "name=a",
        )
    )
    result = json.loads(Path("outputs/a/result.json").read_text())
    lines = Path("outputs/a/events.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    losses = [
        r["values"]["val/loss"]
        for r in records
        if r["type"] == "metrics" and "val/loss" in r["values"]
    ]
    assert value == min(losses) == result["objective"]["value"]
    assert result["best_epoch"] == losses.index(min(losses)) + 1
