"""Pruning with several objectives: by the first alone, as Optuna decides, or if dominated."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState

from tests.sweep.records import sweep_settings
from visionsweep.sweep.results import trials_csv
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.several_objectives import pruning_rule
from visionsweep.sweep.study import SweepStudy

BOTH = ("maximize", "minimize")
STEPS = 9
ASHA = {
    "_target_": "optuna.pruners.SuccessiveHalvingPruner",
    "min_resource": 1,
    "reduction_factor": 3,
}
PRUNERS = {
    "asha": ASHA,
    "bootstrap": ASHA | {"bootstrap_count": 2},
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner",
        "max_resource": STEPS,
        "reduction_factor": 3,
    },
    "median": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 3},
    "percentile": {"_target_": "optuna.pruners.PercentilePruner", "percentile": 25.0},
    "patient": {"_target_": "optuna.pruners.PatientPruner", "wrapped_pruner": None, "patience": 1},
    "threshold": {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.3},
    "wilcoxon": {"_target_": "optuna.pruners.WilcoxonPruner"},
}
TPE = {
    "_target_": "optuna.samplers.TPESampler",
    "multivariate": True,
    "constant_liar": True,
    "n_startup_trials": 3,
}


def suggest(trial: Trial) -> None:
    trial._suggest("x", FloatDistribution(0.0, 1.0))
    trial._suggest("y", FloatDistribution(0.0, 1.0))


def open_study(storage: InMemoryStorage, sampler: Any = TPE, **keys: Any) -> SweepStudy:
    given: dict[str, Any] = {"pruner": build_pruner(ASHA), "suggest": suggest} | keys
    make_sampler = sampler_factory(sampler | {"seed": 0}, 0)
    return SweepStudy(storage, "s", BOTH, owner="a", make_sampler=make_sampler, **given)


def curves(count: int, seed: int) -> np.ndarray:
    """Return (count, STEPS, 2) reports: what is good in one objective is bad in the other."""
    rng = np.random.default_rng(seed)
    steps = np.arange(1, STEPS + 1)
    heights = rng.uniform(0, 1, (count, 1))
    first = heights * (1 - 0.7**steps) + rng.normal(0, 0.05, (count, STEPS))
    second = heights + rng.normal(0, 0.2, (count, 1)) + 1 / steps
    return np.stack([first, second], axis=2)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", PRUNERS)
def test_by_the_first_objective_optunas_pruner_decides_as_on_it_alone(name: str) -> None:
    """Several trials at a time, in random order, against `Trial.should_prune` of plain Optuna."""
    reports = curves(24, seed=len(name))
    ours = open_study(InMemoryStorage(), pruner=build_pruner(PRUNERS[name]))
    theirs = optuna.create_study(
        study_name="s", direction="maximize", pruner=build_pruner(PRUNERS[name])
    )
    dice = random.Random(0)
    running: dict[int, tuple[Trial, int]] = {}
    pruned = []
    while len(ours) < len(reports) or running:
        if len(ours) < len(reports) and len(running) < 3:
            number = ours.ask()
            running[number] = theirs.ask(), 0
        number = dice.choice(list(running))
        trial, last = running[number]
        value, other = reports[number, last]
        trial.report(value, last + 1)
        may_prune = last + 1 < STEPS
        decision = may_prune and trial.should_prune()
        found = ours.report(number, last + 1, value, others=[other], may_prune=may_prune)
        assert found == decision, (number, last + 1)
        running[number] = trial, last + 1
        if decision:
            ours.prune(number)
            theirs.tell(trial, state=TrialState.PRUNED)
            pruned.append(number)
        elif last + 1 == STEPS:
            ours.complete(number, [value, other])
            theirs.tell(trial, value)
        else:
            continue
        del running[number]
    assert 0 < len(pruned) < len(reports)


def work(study: SweepStudy, reports: np.ndarray) -> None:
    """Run all trials, one after the other, as one worker and its controller do."""
    while study.running() or len(study) < len(reports):
        number = [*study.running(), None][0]
        number = study.ask() if number is None else number
        begun = max(study.trial(number).last_step or 1, 1)  # a resumed one repeats its last report
        for step, (value, other) in enumerate(reports[number, begun - 1 :], start=begun):
            if study.report(number, step, value, others=[other], may_prune=step < STEPS):
                study.prune(number)
                break
        else:
            study.complete(number, reports[number, -1].tolist())


def test_only_a_dominated_trial_is_pruned() -> None:
    reports = curves(40, seed=1)
    study = open_study(InMemoryStorage(), prune_by="dominated")
    work(study, reports)
    for trial in study.trials():
        others = [t for t in study.trials() if t.number < trial.number]
        for step in trial.intermediate_values:
            at_step = [t.number for t in others if step in t.intermediate_values]
            found, mine = (reports[n, step - 1] * [-1, 1] for n in (at_step, trial.number))
            is_dominated = bool(((found <= mine).all(axis=1) & (found < mine).any(axis=1)).any())
            is_pruned = trial.state == TrialState.PRUNED and step == trial.last_step
            assert is_dominated or not is_pruned
    first = open_study(InMemoryStorage(), prune_by="first_objective")
    work(first, reports)
    pruned, by_first = (
        {t.number for t in s.trials() if t.state == TrialState.PRUNED} for s in (study, first)
    )
    assert pruned
    assert by_first - pruned


def test_what_is_unknown_or_failed_dominates_nothing() -> None:
    study = open_study(InMemoryStorage(), prune_by="dominated")
    for _ in range(5):
        study.ask()
    study.report(0, 1, 0.9, others=[1.0], may_prune=True)
    study.fail(0)
    study.report(1, 1, 0.9, others=[float("nan")], may_prune=True)
    assert not study.report(2, 1, 0.1, others=[2.0], may_prune=True)
    assert not study.report(3, 1, 0.05, others=[float("nan")], may_prune=True)
    assert study.report(4, 1, 0.01, others=[3.0], may_prune=True)  # #2 dominates it
    study.prune(4)
    study.prune(3)
    assert [study.record(number).values for number in (3, 4)] == [None, (0.01, 3.0)]


class Killed(Exception):  # noqa: N818 - what happens to the process
    """Stands for the death of the process."""


@pytest.mark.parametrize("prune_by", ["first_objective", "dominated"])
def test_deaths_between_any_two_writes_change_nothing(prune_by: str) -> None:
    reports = curves(10, seed=2)
    whole, killed = InMemoryStorage(), InMemoryStorage()
    work(open_study(whole, prune_by=prune_by), reports)
    dice = random.Random(0)
    deaths = 0

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **keywords: Any) -> Any:
            if dice.random() < 0.1:
                raise Killed
            return method(*arguments, **keywords)

        return write

    while True:
        study = open_study(killed, prune_by=prune_by)
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name in [n for n in dir(killed) if n.startswith(("create_new_", "set_trial_"))]:
                monkeypatch.setattr(killed, name, dying(getattr(killed, name)))
            try:
                work(study, reports)
                break
            except Killed:
                deaths += 1
    assert deaths > 5
    trials = [
        [
            (t.state, t.params, t.values, t.intermediate_values, t.system_attrs)
            for t in optuna.load_study(study_name="s", storage=storage).trials
        ]
        for storage in (whole, killed)
    ]
    assert trials[0] == trials[1]
    assert {state for state, *_ in trials[0]} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_pruned_trials_have_all_their_last_values_and_are_in_no_front() -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    for _ in range(3):
        study.ask()
    for number, (value, other) in enumerate([(0.5, 7.0), (0.1, 1.0), (0.6, 9.0)]):
        study.report(number, 1, value, others=[other], may_prune=False)
    study.prune(1)  # it would be in the front
    study.complete(0, [0.5, 7.0])
    study.complete(2, [0.6, 9.0])
    stored = optuna.load_study(study_name="s", storage=storage)
    assert stored.trials[1].state == TrialState.PRUNED
    assert stored.trials[1].values == [0.1, 1.0]
    assert {trial.number for trial in stored.best_trials} == {0, 2}
    table = trials_csv([study.record(number) for number in range(3)], BOTH)
    assert table.splitlines()[2].startswith("1,pruned,0.1,1.0,")


def test_tpe_takes_the_better_of_pruned_trials_for_good_ones() -> None:
    """With hardly any complete trial TPE looks at pruned ones, which plain Optuna cannot rank."""
    study = open_study(InMemoryStorage())
    for _ in range(30):
        number = study.ask()
        x = study.trial(number).params["x"]
        study.report(number, 1, x, others=[1.0], may_prune=False)
        study.prune(number)
    drawn = [trial.params["x"] for trial in study.trials()]
    assert np.mean(drawn[15:]) > 0.75
    plain = optuna.Study("s", study.mirror._storage)
    with pytest.raises(RuntimeError, match="single direction"):
        plain.direction  # noqa: B018 - what TPE asks


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"direction": "maximize", "pruner": ASHA}, None),
        ({"direction": list(BOTH)}, None),
        (
            {"direction": list(BOTH), "pruner": ASHA},
            "2 objectives: SuccessiveHalvingPruner ends a trial that is losing in the first, F1 "
            "(hydra.sweeper.prune_by=first_objective)",
        ),
        (
            {"direction": list(BOTH), "pruner": ASHA, "prune_by": "dominated"},
            "2 objectives: SuccessiveHalvingPruner ends a trial that is losing in the first, F1, "
            "and dominated in all of them at the same epoch (hydra.sweeper.prune_by=dominated)",
        ),
    ],
)
def test_the_rule_is_stated(keys: dict[str, Any], expected: str | None) -> None:
    assert pruning_rule(sweep_settings(**keys), "F1") == expected
