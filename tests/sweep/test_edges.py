"""Parameters whose best values lie at an end of their range: simulated sweeps and made-up ones."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy import stats

from visionsweep.sweep import edges as module
from visionsweep.sweep.edges import edges
from visionsweep.sweep.samplers import sampler_factory
from visionsweep.sweep.space.space import parse_space
from visionsweep.sweep.trial_record import TrialRecord

SPACE = {
    "lr": "tag(log,interval(1e-4,1e-1))",
    "wd": "tag(log,interval(1e-3,1.0))",
    "width": "int(interval(8,64))",
    "loss": "focal,f1,ce",
}


TPE = {
    "_target_": "optuna.samplers.TPESampler",
    "multivariate": True,
    "group": True,
    "constant_liar": True,
    "seed": 0,
}


def simulated(optimum: float, seed: int, count: int, noise: float = 0.01) -> list[TrialRecord]:
    """Return a TPE sweep whose value depends on the learning rate, a little on the loss, and noise.

    ``optimum``: its position in the range of the learning rate, which is 0 to 1. Trials worse than
    the median are pruned. Neither weight decay nor width matters.
    """
    rng = np.random.default_rng([seed, round(100 + 100 * optimum)])
    study = optuna.create_study(direction="maximize")
    space, records = parse_space(SPACE, None, []), []
    for number in range(count):
        study.sampler = sampler_factory(TPE, seed)(number)
        trial = study.ask()
        space.suggest(trial)
        position = (np.log10(trial.params["lr"]) + 4) / 3
        value = 0.9 - 0.4 * (position - optimum) ** 2 + noise * rng.standard_normal()
        value -= 0.01 * ["focal", "f1", "ce"].index(trial.params["loss"])
        done = [r.values[0] for r in records if r.state == "complete" and r.values]
        is_pruned = len(done) >= 5 and value + noise * rng.standard_normal() < np.median(done)
        state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
        trial.report(value, 1)
        study.tell(trial, None if is_pruned else value, state=state)
        records.append(record(number, value, trial.params, is_pruned=is_pruned))
    return records


def record(
    number: int, value: float, params: Mapping[str, Any], *, is_pruned: bool = False
) -> TrialRecord:
    state: Any = "pruned" if is_pruned else "complete"
    return TrialRecord(number, state, (value,), dict(params), 0.0, 1.0, 1, str(number))


def named(
    trials: list[TrialRecord], space: Mapping[str, Any] = SPACE, direction: str = "maximize"
) -> list[tuple[str, bool]]:
    dimensions = parse_space(space, None, []).dimensions
    return [(edge.key, edge.is_upper) for edge in edges(dimensions, trials, direction)]


# -- how often an end is named


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_an_optimum_outside_is_named_and_one_inside_is_not() -> None:
    for seed in range(4):
        assert named(simulated(1.3, seed, 30)) == [("lr", True)]
        assert named(simulated(-0.3, seed, 30)) == [("lr", False)]
        assert named(simulated(0.5, seed, 30)) == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 40])
def test_how_often_an_end_is_named(count: int) -> None:
    inside = [named(simulated(0.2 + 0.6 * i / 79, i, count)) for i in range(80)]
    assert sum(found == [] for found in inside) >= 76
    upper = [named(simulated(1.2, i, count)) for i in range(30)]
    lower = [named(simulated(-0.5, i, count)) for i in range(30)]
    assert sum(("lr", True) in found for found in upper) >= 27
    assert sum(("lr", False) in found for found in lower) >= 27


# -- made-up sweeps


def monotone(value_at: Callable[[float], Any], count: int = 60, sign: int = 1) -> list[TrialRecord]:
    """Return trials of one parameter x, whose value grows with x (``sign`` -1: falls).

    ``value_at``: x at a position from 0 to 1; the positions are evenly spread.
    """
    positions = [(i + 0.5) / count for i in range(count)]
    random.Random(0).shuffle(positions)
    values = map(value_at, positions)
    return [record(i, sign * float(x), {"x": x}) for i, x in enumerate(values)]


def one_of(*values: Any) -> Callable[[float], Any]:
    return lambda u: values[int(u * len(values))]


@pytest.mark.parametrize(
    ("space", "draw", "upper", "lower"),
    [
        ("interval(0.2,0.9)", lambda u: 0.2 + 0.7 * u, True, True),
        ("tag(log,interval(1e-3,1.0))", lambda u: 10 ** (3 * u - 3), True, True),
        ("interval(0.0,1.0)", lambda u: u, False, False),  # a share: 0 and 1 are ends
        ("interval(0.0,2.0)", lambda u: 2 * u, True, False),
        ("interval(-1.0,1.0)", lambda u: 2 * u - 1, True, True),
        ("int(interval(1,30))", one_of(*range(1, 31)), True, False),
        ("range(8,65,4)", one_of(*range(8, 65, 4)), True, True),
        ("range(4,65,4)", one_of(*range(4, 65, 4)), True, False),
        ("16,32,64,128", one_of(16, 32, 64, 128), True, True),
        ("1,2,4,8", one_of(1, 2, 4, 8), True, False),
        ("0.0,0.1,0.2,0.3", one_of(0.0, 0.1, 0.2, 0.3), True, False),
        ("1,2", one_of(1, 2), False, False),
        ("true,false", one_of(True, False), False, False),
        ("interval(3.0,3.0)", lambda u: 3.0, False, False),
    ],
)
def test_ends_that_have_more_beyond(space: str, draw: Any, *, upper: bool, lower: bool) -> None:
    assert named(monotone(draw), {"x": space}) == [("x", True)] * upper
    assert named(monotone(draw, sign=-1), {"x": space}) == [("x", False)] * lower
    assert named(monotone(draw, sign=-1), {"x": space}, "minimize") == [("x", True)] * upper


def test_a_scale_is_the_parameters_own() -> None:
    """The best values are the lowest hundredth of the range: on a linear scale, its end."""
    values = [i / 80 if i % 2 else 10 ** (i / 20 - 4) for i in range(80)]
    trials = [record(i, -abs(np.log10(x) + 2.5), {"x": x}) for i, x in enumerate(values)]
    assert named(trials, {"x": "tag(log,interval(0.0001,1.0))"}) == []
    assert named(trials, {"x": "interval(0.0001,1.0)"}) == [("x", False)]


def test_few_trials_say_nothing() -> None:
    space, trials = {"x": "interval(0.5,2.0)"}, monotone(lambda u: 0.5 + 1.5 * u, 200)
    at_end = sorted(trials, key=lambda trial: trial.params["x"])
    spread = [*at_end[::20], *at_end[-10:]]
    assert named(spread, space) == [("x", True)]
    assert named(spread[1:], space) == []  # 19
    having = [
        record(i, t.values[0], t.params if i else {}) for i, t in enumerate(spread) if t.values
    ]
    assert named(having, space) == []
    pruned = [record(i, i, t.params, is_pruned=i % 5 > 0) for i, t in enumerate(spread)]
    assert named(pruned, space) == []  # 4 of 20 are complete


def test_pruned_trials_are_not_the_best() -> None:
    trials = monotone(lambda u: 0.5 + 1.5 * u, 60)
    high = [t.params["x"] > 1.5 for t in trials]
    found = [
        record(t.number, t.params["x"], t.params, is_pruned=is_high)
        for t, is_high in zip(trials, high, strict=True)
    ]
    assert named(found, {"x": "interval(0.5,2.0)"}) == []


def test_the_statistics_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for draws, hits, chance in ((5, 4, 0.1), (20, 3, 0.2), (10, 0, 0.5), (50, 30, 0.25)):
        wanted = stats.binom.sf(hits - 1, draws, chance)
        assert module._binomial_tail(draws, hits, chance) == pytest.approx(wanted)
    for _ in range(20):
        smaller = rng.integers(0, 8, 6).tolist()
        larger = rng.integers(2, 12, 15).tolist()
        wanted = stats.mannwhitneyu(smaller, larger, alternative="less", method="asymptotic").pvalue
        assert module._rank_test(smaller, larger) == pytest.approx(wanted)
    assert module._rank_test([1.0], []) == module._rank_test([1.0, 1.0], [1.0]) == 1.0


def test_the_share_of_a_zone_is_that_of_optunas_draws() -> None:
    for distribution in (
        IntDistribution(1, 64, log=True),
        IntDistribution(1, 7),
        FloatDistribution(0.0, 1.0, step=0.25),
        FloatDistribution(0.001, 1.0, log=True),
    ):
        scale = module._scale(module.Dimension("x", distribution))
        assert scale is not None
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        drawn = [study.ask({"x": distribution}).params["x"] for _ in range(2000)]
        for is_upper in (False, True):
            seen = np.mean([scale.distance(x, is_upper) <= 0.2 for x in drawn])
            assert scale.share(0.2, is_upper) == pytest.approx(seen, abs=0.04)
