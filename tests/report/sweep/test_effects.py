"""The mean at each value of a parameter, against scipy."""

import numpy as np
import pytest
from scipy import stats

from tests.report.sweep.test_record import swept
from visionsweep.report.sweep.effects import effects
from visionsweep.report.sweep.record import SweepRecord


def record_of(trials, direction="maximize"):
    space = {"loss": {"choices": ["a", "b"]}, "optim.lr": {}, "seed": {}}
    return SweepRecord("s", ("val/f1_macro",), (direction,), space, trials)


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    made = []
    for number in range(40):
        params = {"loss": "ab"[number % 2], "optim.lr": 10.0 ** rng.uniform(-4, -1), "seed": 1}
        value = 0.8 + 0.1 * (number % 2) + rng.normal(0, 0.01)
        state = "pruned" if number % 5 == 0 else "complete"
        made.append(swept(number, state, (value,), params=params))
    return made


def test_a_mean_and_its_interval_are_those_of_scipy(trials):
    found = effects(record_of(trials), ["loss", "optim.lr", "seed"])
    assert list(found) == ["loss", "optim.lr"]  # the seed did not vary
    best, other = found["loss"]
    assert (best.name, other.name) == ("b", "a")
    values = [t.values[0] for t in trials if t.params["loss"] == "b" and t.state == "complete"]
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (best.mean - best.half_width, best.mean + best.half_width) == pytest.approx(expected)
    assert (best.num_complete, best.num_pruned) == (len(values), 20 - len(values))


def test_many_numbers_become_three_ranges_with_equally_many_trials(trials):
    levels = effects(record_of(trials), ["optim.lr"])["optim.lr"]
    assert sorted(level.num_complete + level.num_pruned for level in levels) == [13, 13, 14]
    assert all(" to " in level.name for level in levels)


def test_a_minimized_objective_has_the_lowest_mean_first(trials):
    levels = effects(record_of(trials, "minimize"), ["loss"])["loss"]
    assert [level.name for level in levels] == ["a", "b"]


def test_few_trials_have_no_interval_and_copies_count_once():
    some = [swept(n, values=(0.1 * n,), params={"loss": "ab"[n % 2]}) for n in range(6)]
    again = [swept(9, values=(0.9,), params={"loss": "a"}, duplicate_of=0)]
    levels = effects(record_of(some + again), ["loss"])["loss"]
    assert [(level.num_complete, level.half_width) for level in levels] == [(3, None)] * 2
