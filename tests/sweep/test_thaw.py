"""Which trial is trained next, and whole sweeps that pause and thaw."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage

from tests.sweep.test_controller import Script, Setup, SimulatedEngine, x_of
from visionsweep.errors import ConfigError
from visionsweep.sweep.engines.engine import Job
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.thaw import Curve, Thaw, choose, forecasts

PRUNER = {"_target_": "visionsweep.sweep.thaw.Thaw", "screen": 4, "new_every": 3, "slope": 1.0}
EPOCHS = 6


def waiting(*values: float) -> Curve:
    return Curve(values, is_waiting=True)


def over(*values: float) -> Curve:
    return Curve(values, is_waiting=False)


# -- the choice


def test_a_forecast_adds_the_median_gains_of_the_epochs_that_a_trial_lacks() -> None:
    """By hand: epoch 2 brought 0.2, 0.15 and 0.1, epoch 3 0.1 and 0.0, epoch 4 0.02."""
    curves = {
        0: over(0.5, 0.7, 0.8, 0.82),
        1: waiting(0.4, 0.55),
        2: waiting(0.6),
        3: waiting(0.3, 0.4, 0.4),
    }
    found = forecasts(curves)
    assert found == pytest.approx({0: 0.82, 1: 0.55 + 0.07, 2: 0.6 + 0.22, 3: 0.42})
    assert forecasts({}) == {}


def test_first_a_few_configurations_get_one_epoch_each() -> None:
    thaw = Thaw(screen=3)
    curves: dict[int, Curve] = {}
    for number in range(3):
        assert choose(curves, thaw, can_draw=True) is None
        curves[number] = waiting(0.1 * number)
    assert choose(curves, thaw, can_draw=True) == 2


def test_every_third_epoch_goes_to_a_new_configuration() -> None:
    thaw = Thaw(screen=2, new_every=3)
    values = {0: [0.5], 1: [0.1]}
    chosen = []
    for _ in range(9):
        curves = {number: waiting(*value) for number, value in values.items()}
        number = choose(curves, thaw, can_draw=True)
        chosen.append(number)
        if number is None:
            values[len(values)] = [0.0]
        else:
            values[number].append(values[number][-1] + 0.01)
    assert chosen == [0, 0, 0, None, 0, 0, None, 0, 0]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.2, 0.5), (0.5, 0.6), 0),  # 0.5 + 0.3 against 0.6 + 0.1
        ((0.2, 0.3), (0.5, 0.6), 1),
        ((0.3,), (0.5, 0.6), 1),  # after one epoch the gain is the value itself: 0.6 against 0.7
        ((0.4,), (0.5, 0.6), 0),
        ((0.5, 0.6), (0.5, 0.6), 0),  # of equal ones the older
    ],
)
def test_the_next_epoch_goes_to_the_best_value_plus_its_last_gain(
    first: tuple[float, ...], second: tuple[float, ...], expected: int
) -> None:
    curves = {0: waiting(*first), 1: waiting(*second)}
    assert choose(curves, Thaw(screen=1), can_draw=False) == expected


def test_a_running_trial_is_not_chosen() -> None:
    curves = {0: over(0.9), 1: waiting(0.5)}
    assert choose(curves, Thaw(screen=1, new_every=9), can_draw=True) == 1


def test_it_ends_when_no_paused_trial_promises_more_than_the_best_complete_one() -> None:
    thaw = Thaw(screen=1)
    assert choose({0: over(0.9), 1: waiting(0.5, 0.6)}, thaw, can_draw=False) is None
    assert choose({0: over(0.9), 1: waiting(0.5, 0.8)}, thaw, can_draw=False) == 1


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("screen", 0, "screen: expected at least 1, got 0"),
        ("new_every", 1, "new_every: expected at least 2, got 1"),
        ("slope", -1, "slope: expected 0 or more, got -1"),
    ],
)
def test_bad_settings_are_refused(key: str, value: int, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"hydra.sweeper.pruner: {expected}"):
        build_pruner({**PRUNER, key: value})


# -- the sampler


def test_the_sampler_takes_a_forecast_for_the_value_of_a_paused_trial() -> None:
    """The next draw equals that of plain Optuna on a study in which these trials are complete."""
    sampler = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 2, "seed": None}

    def suggest(trial: optuna.Trial) -> None:
        trial._suggest("x", FloatDistribution(0.0, 1.0))

    study = SweepStudy(
        InMemoryStorage(),
        "s",
        ("maximize",),
        owner="a",
        make_sampler=sampler_factory(sampler, 0),
        pruner=build_pruner(PRUNER),
        suggest=suggest,
    )
    for _ in range(12):
        study.ask()
    values = {n: -abs(study.trial(n).params["x"] - 0.3) for n in range(12)}

    plain = optuna.create_study(direction="maximize", sampler=sampler_factory(sampler, 0)(12))
    for number in range(12):
        params = study.trial(number).params
        distributions = study.trial(number).distributions
        plain.add_trial(
            optuna.create_trial(params=params, distributions=distributions, value=values[number])
        )
    expected = plain.ask({"x": FloatDistribution(0.0, 1.0)}).params
    number = study.ask(values)
    assert study.trial(number).params == expected
    assert study.trial(number).state == optuna.trial.TrialState.RUNNING
    assert abs(expected["x"] - 0.3) < 0.15


# -- sweeps


class Progress:
    """Jobs that resume where they were paused, and say again what they had reached."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained: list[tuple[int, int]] = []  # (trial, epoch)
        self.done: dict[int, int] = {}

    def __call__(self, job: Job) -> Script:
        yield from self.epochs(job)
        yield ("end", "completed", self.value(job, EPOCHS))

    def epochs(self, job: Job) -> Iterator[tuple[Any, ...]]:
        (self.folder / str(job.number)).mkdir(parents=True, exist_ok=True)
        begun = self.done.get(job.number, 0)
        if begun:
            yield ("report", begun, self.value(job, begun))
        for epoch in range(begun + 1, EPOCHS + 1):
            self.trained.append((job.number, epoch))
            self.done[job.number] = epoch
            yield ("report", epoch, self.value(job, epoch))

    def value(self, job: Job, epoch: int) -> float:
        return x_of(job) * (1 - 0.5**epoch)


def make_sweep(folder: Path, **keys: Any) -> tuple[Setup, Progress]:
    progress = Progress(folder)
    return Setup(folder, progress, pruner=PRUNER, epochs=EPOCHS, **keys), progress


@pytest.mark.parametrize("num_slots", [1, 3])
def test_the_best_trial_completes_and_the_others_keep_what_they_reached(
    tmp_path: Path, num_slots: int
) -> None:
    sweep, progress = make_sweep(tmp_path, num_slots=num_slots, n_trials=20)
    end = sweep.run()
    assert (end.code, end.reason) == (0, None)
    trials = sweep.stored()
    xs = [trial.params["x"] for trial in trials]
    best = int(np.argmax(xs))
    assert trials[best].state.name == "COMPLETE"
    assert trials[best].values == [xs[best] * (1 - 0.5**EPOCHS)]
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    for trial in trials:
        last = max(trial.intermediate_values)
        assert trial.value == trial.intermediate_values[last]
    # every epoch of every trial was trained once, and far from all of them
    assert len(set(progress.trained)) == len(progress.trained)
    assert len(progress.trained) < 0.6 * 20 * EPOCHS
    assert not sweep.display.notes


def test_it_minimizes_too(tmp_path: Path) -> None:
    sweep, progress = make_sweep(
        tmp_path, num_slots=1, n_trials=12, directions=("minimize",), direction="minimize"
    )
    progress.value = lambda job, epoch: x_of(job) + 0.5**epoch  # type: ignore[method-assign]
    sweep.run()
    trials = sweep.stored()
    best = int(np.argmin([trial.params["x"] for trial in trials]))
    assert trials[best].state.name == "COMPLETE"


def test_the_trial_that_reaches_the_target_is_trained_to_its_end(tmp_path: Path) -> None:
    sweep, progress = make_sweep(tmp_path, num_slots=1, n_trials=20, target_value=0.5)
    assert sweep.run().reason == "hydra.sweeper.target_value=0.5 is reached"
    (complete,) = [t for t in sweep.stored() if t.state.name == "COMPLETE"]
    epochs = [epoch for number, epoch in progress.trained if number == complete.number]
    reached = next(e for e in epochs if complete.intermediate_values[e] >= 0.5)
    assert progress.trained[-(EPOCHS - reached) :] == [
        (complete.number, epoch) for epoch in range(reached + 1, EPOCHS + 1)
    ]
    # the others are paused, and go on if the sweep does
    assert sweep.states().count("RUNNING") == len(sweep.stored()) - 1


def test_one_worker_decides_the_same_after_any_interruption(tmp_path: Path) -> None:
    whole, progress = make_sweep(tmp_path / "a", num_slots=1, n_trials=8)
    whole.run()
    for cut_at in range(1, len(progress.trained), 3):
        cut, other = make_sweep(tmp_path / f"b{cut_at}", num_slots=1, n_trials=8)

        def script(job: Job, cut: Setup = cut, other: Progress = other, at: int = cut_at) -> Script:
            for event in other(job):
                if len(other.trained) == at and not cut.requests:
                    other.done[job.number] -= 1  # the epoch in flight is lost
                    cut.requests += [2, 2]
                yield event

        cut.script = script
        cut.run()
        cut.requests, cut.script = [], other
        cut.run()
        assert [(t.params, t.values, t.state, t.intermediate_values) for t in cut.stored()] == [
            (t.params, t.values, t.state, t.intermediate_values) for t in whole.stored()
        ]


def test_a_failed_trial_is_not_thawed(tmp_path: Path) -> None:
    sweep, progress = make_sweep(tmp_path, num_slots=1, n_trials=8)
    failed: list[int] = []

    def script(job: Job) -> Script:
        for event in progress(job):
            if event[1] == 2 and not failed:
                failed.append(job.number)
                yield ("end", "failed", None, "ValueError: no")
            yield event

    sweep.script = script
    sweep.run()
    assert sweep.states()[failed[0]] == "FAIL"
    assert [number for number, _ in progress.trained].count(failed[0]) == 2
    assert sweep.states().count("COMPLETE") >= 1


def test_a_worker_that_dies_while_it_pauses_changes_no_decision(tmp_path: Path) -> None:
    whole, progress = make_sweep(tmp_path / "a", num_slots=1, n_trials=8)
    whole.run()
    cut, other = make_sweep(tmp_path / "b", num_slots=1, n_trials=8)
    engine_end = SimulatedEngine._end
    lost = []

    def end(engine: SimulatedEngine, key: str, state: Any, *more: Any) -> Any:
        if state == "stopped" and len(lost) < 2:
            lost.append(key)
            state = "lost"
        return engine_end(engine, key, state, *more)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(SimulatedEngine, "_end", end)
        cut.run()
    assert len(lost) == 2
    assert other.trained == progress.trained
    assert [(t.params, t.values, t.state) for t in cut.stored()] == [
        (t.params, t.values, t.state) for t in whole.stored()
    ]
