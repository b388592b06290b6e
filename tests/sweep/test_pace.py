"""Seconds per epoch, start and end, from the times of events."""

import json

import pytest

from visionsweep.sweep.pace import Pace


def train(
    pace: Pace, number: int, seconds: list[float], now: float = 0.0, *, start: float = 0.0
) -> float:
    """Let a trial train its first epochs without a pause; return when it ended."""
    pace.started(number, now, is_resumed=False)
    now += start
    for step, took in enumerate(seconds, 1):
        now += took
        pace.reported(number, step, now)
    return now


def test_the_start_is_told_from_the_first_epoch() -> None:
    pace = Pace(4)
    assert not pace.is_known
    train(pace, 0, [2.0], start=7.0)
    assert not pace.is_known  # 9 seconds: of what?
    train(pace, 1, [2.0, 2.0], start=7.0)
    assert pace.is_known
    assert pace.epoch_seconds() == pytest.approx(2.0)
    assert pace.seconds_to_end(None) == pytest.approx(7 + 4 * 2)
    assert pace.first_seconds(0) == pytest.approx(2.0)


def test_each_trial_has_its_own_speed() -> None:
    pace = Pace(10)
    for number, seconds in enumerate([1.0, 1.0, 3.0]):
        train(pace, number, [seconds] * 2)
    assert pace.seconds_to_end(0, 2, is_running=True) == pytest.approx(8)
    assert pace.seconds_to_end(2, 2, is_running=True) == pytest.approx(24)
    assert pace.seconds_to_end(None) == pytest.approx(10)  # as a usual one
    assert pace.turn_seconds(None) == pytest.approx(3)  # it may be slow


def test_with_one_epoch_a_trial_may_be_slow_but_not_fast() -> None:
    pace = Pace(10)
    train(pace, 0, [1.0, 1.0], start=0.5)
    train(pace, 1, [4.0], start=0.5)
    train(pace, 2, [0.2], start=0.5)
    assert pace.seconds_to_end(1, 1, is_running=True) == pytest.approx(9 * 4)
    assert pace.seconds_to_end(2, 1, is_running=True) == pytest.approx(9)


def test_later_epochs_cost_what_they_cost_in_other_trials() -> None:
    """Of a slow trial alone it is known that epochs 3 and 4 take twice as long."""
    pace = Pace(4)
    train(pace, 0, [1.0, 1.0])
    assert pace.seconds_to_end(0, 2, is_running=True) == pytest.approx(2)
    train(pace, 1, [5.0, 5.0, 10.0, 10.0])
    assert pace.seconds_to_end(0, 2, is_running=True) == pytest.approx(4)
    assert pace.seconds_to_end(1, 2, is_running=True) == pytest.approx(20)


def test_a_thawed_trial_needs_its_own_start_and_its_end() -> None:
    pace = Pace(3)
    now = train(pace, 0, [1.0, 1.0], start=9.0)
    pace.ended(0, now + 0.2, "stopped")
    pace.started(0, 20.0, is_resumed=True)
    assert pace.reported(0, 2, 20.5) == ("start", 0.5)
    assert pace.reported(0, 3, 21.5) == ("epoch", 1.0)
    pace.ended(0, 21.9, "completed")
    assert pace.seconds_to_end(0, 2) == pytest.approx(0.5 + 1.0 + 0.4)
    assert pace.turn_seconds(0, 1) == pytest.approx(0.5 + 1.0 + 0.2)
    assert pace.seconds_to_end(None) == pytest.approx(9 + 3 + 0.4)


def test_a_trial_of_several_folds_needs_all_of_them() -> None:
    pace = Pace(4, num_runs=5)
    train(pace, 0, [1.0, 1.0])
    assert pace.seconds_to_end(0, 2, is_running=True) == pytest.approx(18)
    assert pace.seconds_to_end(0, 8, is_running=True) == pytest.approx(12)


def test_trials_of_one_epoch_have_no_start_of_their_own() -> None:
    pace = Pace(1)
    train(pace, 0, [2.0], start=1.0)
    assert pace.is_known
    assert pace.seconds_to_end(None) == pytest.approx(3.0)


def test_a_later_command_expects_what_was_learned() -> None:
    pace = Pace(4)
    now = train(pace, 0, [1.0, 1.0, 3.0], start=5.0)
    pace.ended(0, now, "stopped")
    later = Pace(4)
    later.take_over({})
    assert not later.is_known
    later.take_over(json.loads(json.dumps(pace.learned())))
    assert later.is_known
    assert later.seconds_to_end(None) == pytest.approx(pace.seconds_to_end(None))
    other = Pace(7)  # the epochs of the study were changed
    other.take_over(pace.learned())
    assert not other.is_known
