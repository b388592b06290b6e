"""Schedules compared with torch's, and features torch lacks: warm-up, holding, exact resume."""

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from tests.conftest import ROOT
from visionsweep.errors import ConfigError
from visionsweep.schedulers.base import Scheduler
from visionsweep.schedulers.constant import ConstantScheduler
from visionsweep.schedulers.cosine import CosineScheduler
from visionsweep.schedulers.cosine_restarts import CosineRestartsScheduler
from visionsweep.schedulers.onecycle import OneCycleScheduler
from visionsweep.schedulers.plateau import PlateauScheduler
from visionsweep.schedulers.step import StepScheduler
from visionsweep.schedulers.wsd import WSDScheduler

TOTAL, PER_EPOCH = 40, 4
RUN = {"total_updates": TOTAL, "updates_per_epoch": PER_EPOCH}
LRS = (0.5, 0.02)
CHOICES = sorted((ROOT / "conf/scheduler").glob("*.yaml"))


def make_optimizer() -> torch.optim.Optimizer:
    """Return SGD over two groups with different lr, as with layer-wise decay."""
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in LRS]
    )


def current_lrs(scheduler: Any) -> list[float]:
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def drive(scheduler: Any, updates: range, *, evaluate: bool = False) -> list[list[float]]:
    """Return the lrs of the updates.

    With `evaluate`, each epoch ends with an evaluation, of which only the first few improve.
    """
    lrs = []
    for update in updates:
        lrs.append(current_lrs(scheduler))
        scheduler.optimizer.step()
        scheduler.step()
        if evaluate and update % PER_EPOCH == 0:
            scheduler.step_evaluation(min(update, 10) / 100)
    return lrs


def assert_close(ours: list[list[float]], expected: list[list[float]]) -> None:
    for a, b in zip(ours, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12)


TORCH_TWINS = {
    "step": (
        lambda o, **run: StepScheduler(o, step_epochs=2.5, gamma=0.3, **run),
        lambda o, rest: lr_scheduler.StepLR(o, step_size=10, gamma=0.3),
    ),
    "cosine": (CosineScheduler, lambda o, rest: lr_scheduler.CosineAnnealingLR(o, T_max=rest)),
    **{
        f"cosine_restarts_{mult}": (
            lambda o, mult=mult, **run: CosineRestartsScheduler(o, 0.75, mult, **run),
            lambda o, rest, mult=mult: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, mult),
        )
        for mult in (1, 2, 3)
    },
}


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
@pytest.mark.parametrize(("ours", "theirs"), TORCH_TWINS.values(), ids=TORCH_TWINS.keys())
def test_equals_torch_after_the_warmup(ours: Any, theirs: Any, warmup_epochs: float) -> None:
    lrs = drive(ours(make_optimizer(), warmup_epochs=warmup_epochs, **RUN), range(TOTAL))
    warmup = round(warmup_epochs * PER_EPOCH)
    for u in range(warmup):
        assert lrs[u] == pytest.approx([lr * (u + 1) / warmup for lr in LRS])
    rest = TOTAL - warmup
    assert_close(lrs[warmup:], drive(theirs(make_optimizer(), rest), range(rest)))


def test_cosine_falls_to_a_fraction_of_each_base_lr() -> None:
    scheduler = CosineScheduler(make_optimizer(), min_factor=0.1, **RUN)
    lrs = drive(scheduler, range(TOTAL))
    for u in (0, TOTAL // 2, TOTAL - 1):
        factor = 0.1 + 0.9 * (1 + math.cos(math.pi * u / TOTAL)) / 2
        assert lrs[u] == pytest.approx([factor * lr for lr in LRS])


def test_wsd_holds_the_base_lr_and_falls_as_one_minus_the_square_root() -> None:
    """Equation (1) of the paper, written down for a decay of 2 epochs (8 updates) of 40 updates."""
    lrs = drive(WSDScheduler(make_optimizer(), 2.0, 0.1, 1.0, **RUN), range(TOTAL))
    assert lrs[:4] == [pytest.approx([lr * (u + 1) / 4 for lr in LRS]) for u in range(4)]
    assert lrs[4:33] == [list(LRS)] * 29
    for passed in range(1, 8):
        factor = 0.1 + 0.9 * (1 - (passed / 8) ** 0.5)
        assert lrs[32 + passed] == pytest.approx([factor * lr for lr in LRS])


def test_early_updates_of_wsd_do_not_depend_on_the_length_of_the_run() -> None:
    def early(total: int) -> list[list[float]]:
        run = {"total_updates": total, "updates_per_epoch": PER_EPOCH}
        return drive(WSDScheduler(make_optimizer(), warmup_epochs=0.5, **run), range(16))

    assert early(20) == early(40) == early(400)


def test_wsd_decays_over_a_fifth_of_the_run_or_what_the_warmup_leaves() -> None:
    lrs = [lr for lr, _ in drive(WSDScheduler(make_optimizer(), **RUN), range(TOTAL))]
    assert [lr < LRS[0] for lr in lrs] == [False] * 33 + [True] * 7
    scheduler = WSDScheduler(make_optimizer(), warmup_epochs=9.0, **RUN)
    lrs = [lr for lr, _ in drive(scheduler, range(TOTAL))]
    assert lrs[35:37] == [LRS[0]] * 2
    assert lrs[37] == pytest.approx(LRS[0] / 2)  # 1 - sqrt(1 / 4)


def test_a_decay_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scheduler.decay_epochs: .*36 updates.*got 9.5 \(38"):
        WSDScheduler(make_optimizer(), 9.5, warmup_epochs=1.0, **RUN)
    with pytest.raises(ConfigError, match=r"scheduler.decay_epochs: .* above 0"):
        WSDScheduler(make_optimizer(), 0.0, **RUN)


@pytest.mark.parametrize(("warmup_epochs", "pct_start"), [(None, 0.3), (2.5, 0.25), (0.5, 0.05)])
def test_onecycle_equals_torch(warmup_epochs: float | None, pct_start: float) -> None:
    factors = {"div_factor": 10, "final_div_factor": 50}
    ours = OneCycleScheduler(make_optimizer(), warmup_epochs=warmup_epochs, **factors, **RUN)
    theirs = lr_scheduler.OneCycleLR(
        make_optimizer(),
        max_lr=list(LRS),
        total_steps=TOTAL,
        pct_start=pct_start,
        cycle_momentum=False,
        **factors,
    )
    lrs = drive(ours, range(TOTAL))
    assert_close(lrs, drive(theirs, range(TOTAL)))
    assert lrs[round(pct_start * TOTAL) - 1] == list(LRS)


def test_onecycle_reaches_the_base_lr_for_any_number_of_updates() -> None:
    scheduler = OneCycleScheduler(make_optimizer(), total_updates=37, updates_per_epoch=37)
    assert max(drive(scheduler, range(37))) == list(LRS)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_equals_torch(direction: str, cooldown: int) -> None:
    settings = {"factor": 0.5, "patience": 1, "threshold": 0.05, "cooldown": cooldown}
    ours = PlateauScheduler(make_optimizer(), direction=direction, **settings, **RUN)
    theirs = lr_scheduler.ReduceLROnPlateau(
        make_optimizer(), mode=direction[:3], threshold_mode="rel", **settings
    )
    values = [0.5, 0.6, 0.61, 0.62, 0.63, 0.9, 0.2, 0.91, 0.92, 0.1]
    values += [0.93, math.nan, 0.94, 0.95, 0.96, 0.05, 0.06, 0.051, 0.0499, 0.4]
    reduced = set()
    for value in values:
        ours.step_evaluation(value)
        theirs.step(value)
        assert current_lrs(ours) == pytest.approx(current_lrs(theirs))
        reduced.add(current_lrs(ours)[0])
    assert len(reduced) >= 4


def test_plateau_stops_at_its_floor_for_a_negative_objective_too() -> None:
    settings = {"factor": 0.1, "patience": 0, "threshold": 0.1, "min_factor": 0.05}
    scheduler = PlateauScheduler(make_optimizer(), direction="maximize", **settings, **RUN)
    scheduler.step_evaluation(-10.0)
    scheduler.step_evaluation(-8.0)  # better by 20 %
    assert current_lrs(scheduler) == list(LRS)
    for _ in range(3):
        scheduler.step_evaluation(-7.9)
    assert current_lrs(scheduler)[0] == pytest.approx(0.05 * LRS[0])


def test_plateau_ignores_bad_evaluations_during_the_warmup() -> None:
    scheduler = PlateauScheduler(
        make_optimizer(), factor=0.1, patience=1, warmup_epochs=2, direction="maximize", **RUN
    )
    for _ in range(5):
        scheduler.step_evaluation(0.5)
    drive(scheduler, range(8))
    scheduler.step_evaluation(0.5)
    assert current_lrs(scheduler)[0] == LRS[0]
    scheduler.step_evaluation(0.5)
    assert current_lrs(scheduler)[0] == pytest.approx(0.1 * LRS[0])


def build(name: str, *, warmup_epochs: float | None = None, **run: int) -> Scheduler:
    """Build a choice of conf/scheduler with a new optimizer, by default for 40 updates."""
    node = OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/scheduler/{name}.yaml"))
    if warmup_epochs is not None:
        node["warmup_epochs"] = warmup_epochs
    scheduler_class = get_class(node.pop("_target_"))
    if "direction" in inspect.signature(scheduler_class).parameters:
        node["direction"] = "maximize"
    return scheduler_class(make_optimizer(), **node, **(run or RUN))


every_choice = pytest.mark.parametrize("name", [path.stem for path in CHOICES])


@every_choice
def test_every_choice_warms_up_and_holds_its_last_lr(name: str) -> None:
    lrs = drive(build(name, warmup_epochs=1), range(2 * TOTAL))
    assert lrs[PER_EPOCH - 1] == list(LRS)
    assert lrs[:PER_EPOCH] == sorted(lrs[:PER_EPOCH])
    assert max(lrs) == list(LRS)
    assert lrs[TOTAL:] == [lrs[TOTAL - 1]] * TOTAL
    if name == "none":
        assert [lr for lr, _ in lrs[:5]] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])
        assert lrs[5:] == [list(LRS)] * (2 * TOTAL - 5)


@every_choice
def test_a_run_of_one_update_uses_the_base_lr(name: str) -> None:
    assert current_lrs(build(name, total_updates=1, updates_per_epoch=1)) == list(LRS)


@every_choice
@pytest.mark.parametrize("stop", [2, 17, 33])
def test_a_resumed_schedule_is_bitwise_equal(name: str, stop: int, tmp_path: Any) -> None:
    whole = drive(build(name, warmup_epochs=1), range(TOTAL), evaluate=True)
    first = build(name, warmup_epochs=1)
    drive(first, range(stop), evaluate=True)
    torch.save((first.optimizer.state_dict(), first.state_dict()), tmp_path / "state.pt")
    second = build(name, warmup_epochs=1)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second.optimizer.load_state_dict(saved[0])
    second.load_state_dict(copy.deepcopy(saved[1]))
    assert second.state_dict() == first.state_dict()
    assert drive(second, range(stop, TOTAL), evaluate=True) == whole[stop:]


def test_a_skipped_first_update_raises_no_warning() -> None:
    """The fp16 scaler skips updates until it finds its scale. Warnings are errors in tests."""
    scheduler = ConstantScheduler(make_optimizer(), **RUN)
    scheduler.step()
    assert current_lrs(scheduler) == list(LRS)


PLATEAU = {"direction": "maximize"}


@pytest.mark.parametrize(
    ("scheduler", "kwargs", "message"),
    [
        (CosineScheduler, {"warmup_epochs": 10}, r"warmup_epochs: .* run \(40 .*got 10 \(40 "),
        (OneCycleScheduler, {"warmup_epochs": 12.0}, r"warmup_epochs: .*got 12\.0 \(48 updates\)"),
        (ConstantScheduler, {"warmup_epochs": -1}, r"warmup_epochs: .* epochs >= 0, got -1"),
        (ConstantScheduler, {"warmup_epochs": math.nan}, r"warmup_epochs: .*got nan"),
        (StepScheduler, {"step_epochs": 0, "gamma": 0.1}, r"step_epochs: .* above 0, got 0"),
        (StepScheduler, {"step_epochs": 1, "gamma": 0.0}, r"gamma: .*\(0, 1\].*got 0\.0"),
        (CosineScheduler, {"min_factor": 1.5}, r"min_factor: .*got 1\.5"),
        (CosineRestartsScheduler, {"restart_epochs": -2}, r"restart_epochs: .*got -2"),
        (
            CosineRestartsScheduler,
            {"restart_epochs": 1, "restart_mult": 0},
            r"restart_mult: .*got 0",
        ),
        (OneCycleScheduler, {"div_factor": 0.5}, r"div_factor: .*got 0\.5"),
        (OneCycleScheduler, {"final_div_factor": 0}, r"final_div_factor: .*got 0"),
        (PlateauScheduler, PLATEAU | {"factor": 1.0}, r"factor: .*got 1\.0"),
        (PlateauScheduler, PLATEAU | {"patience": -1}, r"patience: .*got -1"),
        (PlateauScheduler, PLATEAU | {"cooldown": -1}, r"cooldown: .*got -1"),
        (PlateauScheduler, PLATEAU | {"threshold": -1}, r"threshold: .*got -1"),
    ],
)
def test_wrong_settings_are_refused(scheduler: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^scheduler\.{message}"):
        scheduler(make_optimizer(), **kwargs, **RUN)
