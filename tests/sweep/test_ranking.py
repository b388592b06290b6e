"""The best trial and the Pareto set, against Optuna's."""

import random

import optuna
import pytest

from tests.sweep.records import record
from visionsweep.sweep.ranking import best, pareto, ranked


def test_the_best_is_complete_and_the_earlier_of_two_equal_ones() -> None:
    trials = [
        record(0, 0.9, state="pruned"),
        record(1, 0.5),
        record(3, 0.7),
        record(2, 0.7),
        record(4, state="failed"),
    ]
    assert best(trials, ["maximize"]) is trials[3]
    assert best(trials, ["minimize"]) is trials[1]
    assert best(trials[:1], ["maximize"]) is None
    assert best([record(0, float("nan")), record(1, 0.1)], ["maximize"]) == record(1, 0.1)


@pytest.mark.parametrize(
    "directions", [["maximize", "minimize"], ["minimize", "minimize", "maximize"], ["maximize"]]
)
@pytest.mark.parametrize("seed", range(5))
def test_the_pareto_set_is_optunas(directions: list[str], seed: int) -> None:
    draw = random.Random(seed)
    study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
    trials = []
    for number in range(60):
        values = [draw.randrange(8) / 8 for _ in directions]  # few values, so that there are ties
        failed = draw.random() < 0.2
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(state=state, values=None if failed else values))
        trials.append(
            record(number, *([] if failed else values), state="failed" if failed else "complete")
        )
    draw.shuffle(trials)
    front = [trial.number for trial in pareto(trials, directions)]
    expected = (
        study.best_trials
        if len(directions) > 1
        else [t for t in study.trials if t.value == study.best_value]
    )
    assert front == [trial.number for trial in expected]
    chosen = best(trials, directions)
    assert chosen is not None
    assert chosen.number == ranked(trials, directions)[0].number
    if len(directions) == 1:
        assert chosen.number == study.best_trial.number


def test_the_best_of_several_objectives_is_that_of_the_first() -> None:
    trials = [
        record(0, 0.5, 1),
        record(1, 0.9, 3),
        record(2, 0.9, 2),
        record(3, 0.1, 9),
        record(4, 0.8, 3),
    ]
    chosen = best(trials, ["maximize", "minimize"])
    assert chosen is trials[2]
    assert [trial.number for trial in ranked(trials, ["maximize", "minimize"])] == [2, 0, 1, 4, 3]
