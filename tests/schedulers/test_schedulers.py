"""Each schedule against torch's at every update, and what torch does not do: warm-up, holding the last lr."""

import copy
import math
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler
from visionsweep.schedulers.constant import ConstantScheduler
from visionsweep.schedulers.cosine import CosineScheduler
from visionsweep.schedulers.cosine_restarts import CosineRestartsScheduler
from visionsweep.schedulers.onecycle import OneCycleScheduler
from visionsweep.schedulers.plateau import PlateauScheduler
from visionsweep.schedulers.step import StepScheduler

TOTAL, PER_EPOCH = 40, 4
RUN = {"total_updates": TOTAL, "updates_per_epoch": PER_EPOCH}
LRS = (0.5, 0.02)


def make_optimizer() -> torch.optim.Optimizer:
    """Return SGD over two groups of different lr, as layer-wise decay makes them."""
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in LRS]
    )


def lrs_of(scheduler: Any, num_updates: int) -> list[list[float]]:
    """Return the lr of both groups at updates 0 .. num_updates - 1."""
    lrs = []
    for _ in range(num_updates):
        lrs.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return lrs


def assert_close(ours: list[list[float]], expected: list[list[float]]) -> None:
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12)


def after_warmup(build_ours, build_torch, warmup_updates: int) -> None:
    """Compare with torch's schedule of the updates that the warm-up leaves."""
    ours = lrs_of(build_ours(), TOTAL)
    for u in range(warmup_updates):
        assert ours[u] == pytest.approx([lr * (u + 1) / warmup_updates for lr in LRS])
    assert_close(
        ours[warmup_updates:], lrs_of(build_torch(TOTAL - warmup_updates), TOTAL - warmup_updates)
    )


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
def test_step_is_that_of_torch(warmup_epochs):
    after_warmup(
        lambda: StepScheduler(
            make_optimizer(), step_epochs=2.5, gamma=0.3, warmup_epochs=warmup_epochs, **RUN
        ),
        lambda rest: lr_scheduler.StepLR(make_optimizer(), step_size=10, gamma=0.3),
        round(warmup_epochs * PER_EPOCH),
    )


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
def test_cosine_is_that_of_torch(warmup_epochs):
    after_warmup(
        lambda: CosineScheduler(make_optimizer(), warmup_epochs=warmup_epochs, **RUN),
        lambda rest: lr_scheduler.CosineAnnealingLR(make_optimizer(), T_max=rest),
        round(warmup_epochs * PER_EPOCH),
    )


def test_cosine_falls_to_the_fraction_of_each_base_lr():
    scheduler = CosineScheduler(make_optimizer(), min_factor=0.1, **RUN)
    lrs = lrs_of(scheduler, TOTAL)
    for group, lr in enumerate(LRS):
        expected = [
            0.1 * lr + 0.9 * lr * (1 + math.cos(math.pi * u / TOTAL)) / 2
            for u in (0, TOTAL // 2, TOTAL - 1)
        ]
        assert [lrs[u][group] for u in (0, TOTAL // 2, TOTAL - 1)] == pytest.approx(expected)


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
@pytest.mark.parametrize("mult", [1, 2, 3])
def test_cosine_restarts_are_those_of_torch(mult, warmup_epochs):
    after_warmup(
        lambda: CosineRestartsScheduler(
            make_optimizer(),
            restart_epochs=0.75,
            restart_mult=mult,
            warmup_epochs=warmup_epochs,
            **RUN,
        ),
        lambda rest: lr_scheduler.CosineAnnealingWarmRestarts(make_optimizer(), T_0=3, T_mult=mult),
        round(warmup_epochs * PER_EPOCH),
    )


@pytest.mark.parametrize(("warmup_epochs", "pct_start"), [(None, 0.3), (2.5, 0.25), (0.5, 0.05)])
def test_onecycle_is_that_of_torch(warmup_epochs, pct_start):
    ours = OneCycleScheduler(
        make_optimizer(), div_factor=10, final_div_factor=50, warmup_epochs=warmup_epochs, **RUN
    )
    theirs = lr_scheduler.OneCycleLR(
        make_optimizer(),
        max_lr=list(LRS),
        total_steps=TOTAL,
        pct_start=pct_start,
        div_factor=10,
        final_div_factor=50,
        cycle_momentum=False,
    )
    lrs = lrs_of(ours, TOTAL)
    assert_close(lrs, lrs_of(theirs, TOTAL))
    assert lrs[round(pct_start * TOTAL) - 1] == list(LRS)
    assert lrs[0] == pytest.approx([lr / 10 for lr in LRS])
    assert lrs[-1] == pytest.approx([lr / 500 for lr in LRS])


def test_onecycle_reaches_the_base_lr_when_the_rise_is_no_whole_number_of_updates():
    scheduler = OneCycleScheduler(make_optimizer(), total_updates=37, updates_per_epoch=37)
    assert max(lrs_of(scheduler, 37)) == list(LRS)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_is_that_of_torch(direction, cooldown):
    ours = PlateauScheduler(
        make_optimizer(),
        factor=0.5,
        patience=1,
        threshold=0.05,
        cooldown=cooldown,
        direction=direction,
        **RUN,
    )
    theirs = lr_scheduler.ReduceLROnPlateau(
        make_optimizer(),
        mode=direction[:3],
        factor=0.5,
        patience=1,
        threshold=0.05,
        threshold_mode="rel",
        cooldown=cooldown,
    )
    values = [
        0.5,
        0.6,
        0.61,
        0.62,
        0.63,
        0.9,
        0.2,
        0.91,
        0.92,
        0.1,
        0.93,
        float("nan"),
        0.94,
        0.95,
        0.96,
    ]
    values += [0.05, 0.06, 0.051, 0.0499, 0.4]
    reduced = set()
    for value in values:
        ours.step_evaluation(value)
        theirs.step(value)
        lrs = [group["lr"] for group in ours.optimizer.param_groups]
        assert lrs == pytest.approx([group["lr"] for group in theirs.optimizer.param_groups])
        reduced.add(lrs[0])
    assert len(reduced) >= 4


def test_plateau_stops_at_its_floor_and_needs_no_positive_objective():
    scheduler = PlateauScheduler(
        make_optimizer(),
        factor=0.1,
        patience=0,
        threshold=0.1,
        min_factor=0.05,
        direction="maximize",
        **RUN,
    )
    scheduler.step_evaluation(-10.0)
    scheduler.step_evaluation(-8.0)  # better by 20 %
    assert scheduler.optimizer.param_groups[0]["lr"] == LRS[0]
    for _ in range(3):
        scheduler.step_evaluation(-7.9)
    assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * LRS[0])


def test_plateau_does_not_count_bad_evaluations_of_the_warmup():
    scheduler = PlateauScheduler(
        make_optimizer(), factor=0.1, patience=1, warmup_epochs=2, direction="maximize", **RUN
    )
    for _ in range(5):
        scheduler.step_evaluation(0.5)
    lrs_of(scheduler, 8)
    scheduler.step_evaluation(0.5)
    assert scheduler.optimizer.param_groups[0]["lr"] == LRS[0]
    scheduler.step_evaluation(0.5)
    assert scheduler.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * LRS[0])


def test_constant_is_constant_after_its_warmup():
    lrs = lrs_of(ConstantScheduler(make_optimizer(), warmup_epochs=1, **RUN), TOTAL)
    assert [lr for lr, _ in lrs[:5]] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])
    assert lrs[4:] == [list(LRS)] * (TOTAL - 4)


SCHEDULES = {
    "none": lambda o: ConstantScheduler(o, warmup_epochs=1, **RUN),
    "step": lambda o: StepScheduler(o, step_epochs=3, gamma=0.1, warmup_epochs=1, **RUN),
    "cosine": lambda o: CosineScheduler(o, warmup_epochs=1, **RUN),
    "onecycle": lambda o: OneCycleScheduler(o, warmup_epochs=1, **RUN),
    "cosine_restarts": lambda o: CosineRestartsScheduler(
        o, restart_epochs=2, restart_mult=2, warmup_epochs=1, **RUN
    ),
    "plateau": lambda o: PlateauScheduler(
        o, patience=0, cooldown=1, warmup_epochs=1, direction="maximize", **RUN
    ),
}
every_schedule = pytest.mark.parametrize("build", SCHEDULES.values(), ids=SCHEDULES.keys())


@every_schedule
def test_the_last_lr_is_held_past_the_end(build):
    lrs = lrs_of(build(make_optimizer()), 3 * TOTAL)
    assert lrs[TOTAL:] == [lrs[TOTAL - 1]] * (2 * TOTAL)


@pytest.mark.parametrize(
    ("scheduler", "kwargs"),
    [
        (ConstantScheduler, {}),
        (StepScheduler, {"step_epochs": 1, "gamma": 0.1}),
        (CosineScheduler, {}),
        (OneCycleScheduler, {}),
        (CosineRestartsScheduler, {"restart_epochs": 1}),
        (PlateauScheduler, {"direction": "maximize"}),
    ],
)
def test_a_run_of_one_update_is_at_the_base_lr(scheduler, kwargs):
    optimizer = make_optimizer()
    scheduler(optimizer, total_updates=1, updates_per_epoch=1, **kwargs)
    assert [group["lr"] for group in optimizer.param_groups] == list(LRS)


def drive(scheduler: Scheduler, updates: range) -> list[list[float]]:
    """Return the lrs of the updates, with an evaluation after each epoch that improves only at first."""
    lrs = []
    for update in updates:
        lrs.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
        if update % PER_EPOCH == 0:
            scheduler.step_evaluation(min(update, 10) / 100)
    return lrs


@every_schedule
@pytest.mark.parametrize("stop", [2, 17, 33])
def test_a_restored_schedule_goes_on_to_the_bit(build, stop):
    whole = drive(build(make_optimizer()), range(TOTAL))
    first = build(make_optimizer())
    drive(first, range(stop))
    saved = copy.deepcopy((first.state_dict(), first.optimizer.state_dict()))
    second = build(make_optimizer())
    second.optimizer.load_state_dict(saved[1])
    second.load_state_dict(saved[0])
    assert drive(second, range(stop, TOTAL)) == whole[stop:]


@every_schedule
def test_loading_restores_the_lr_of_the_groups_by_itself(build, tmp_path):
    first = build(make_optimizer())
    drive(first, range(20))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = build(make_optimizer())
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [g["lr"] for g in second.optimizer.param_groups] == [
        g["lr"] for g in first.optimizer.param_groups
    ]
    assert second.state_dict() == first.state_dict()


@pytest.mark.parametrize(
    ("scheduler", "kwargs", "message"),
    [
        (
            CosineScheduler,
            {"warmup_epochs": 10},
            r"^scheduler\.warmup_epochs: got 10 \(40 updates\), expected less than the run \(40 updates\)",
        ),
        (
            OneCycleScheduler,
            {"warmup_epochs": 12.0},
            r"^scheduler\.warmup_epochs: got 12\.0 \(48 updates\)",
        ),
        (
            ConstantScheduler,
            {"warmup_epochs": -1},
            r"^scheduler\.warmup_epochs: got -1, expected .* epochs >= 0",
        ),
        (ConstantScheduler, {"warmup_epochs": float("nan")}, r"^scheduler\.warmup_epochs: got nan"),
        (
            StepScheduler,
            {"step_epochs": 0, "gamma": 0.1},
            r"^scheduler\.step_epochs: got 0, .* above 0",
        ),
        (
            StepScheduler,
            {"step_epochs": 1, "gamma": 0.0},
            r"^scheduler\.gamma: got 0\.0, .* in \(0, 1\]",
        ),
        (CosineScheduler, {"min_factor": 1.5}, r"^scheduler\.min_factor: got 1\.5"),
        (CosineRestartsScheduler, {"restart_epochs": -2}, r"^scheduler\.restart_epochs: got -2"),
        (
            CosineRestartsScheduler,
            {"restart_epochs": 1, "restart_mult": 0},
            r"^scheduler\.restart_mult: got 0",
        ),
        (
            CosineRestartsScheduler,
            {"restart_epochs": 1, "min_factor": -1},
            r"^scheduler\.min_factor: got -1, expected a number in \[0, 1\]",
        ),
        (OneCycleScheduler, {"div_factor": 0.5}, r"^scheduler\.div_factor: got 0\.5"),
        (OneCycleScheduler, {"final_div_factor": 0}, r"^scheduler\.final_div_factor: got 0"),
        (
            PlateauScheduler,
            {"direction": "maximize", "factor": 1.0},
            r"^scheduler\.factor: got 1\.0",
        ),
        (
            PlateauScheduler,
            {"direction": "maximize", "patience": -1},
            r"^scheduler\.patience: got -1",
        ),
        (
            PlateauScheduler,
            {"direction": "maximize", "cooldown": -1},
            r"^scheduler\.cooldown: got -1",
        ),
        (
            PlateauScheduler,
            {"direction": "maximize", "threshold": -1},
            r"^scheduler\.threshold: got -1",
        ),
        (
            PlateauScheduler,
            {"direction": "maximize", "min_factor": 2},
            r"^scheduler\.min_factor: got 2",
        ),
    ],
)
def test_wrong_settings_are_refused(scheduler, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        scheduler(make_optimizer(), **kwargs, **RUN)
