"""The controller's decisions, with an engine that steps through generators in random order."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState
from sklearn.metrics import f1_score

from tests.answer.made import make_finished_run, split_of
from tests.sweep.records import sweep_settings
from visionsweep.errors import ConfigError
from visionsweep.rundir.layout import PREDICTIONS, TRIAL_ERROR
from visionsweep.sweep import pause
from visionsweep.sweep.controller import Controller, SweepEnd
from visionsweep.sweep.display import Status
from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started
from visionsweep.sweep.objective import objectives
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.study import SweepStudy
from visionsweep.sweep.tally import Tally
from visionsweep.sweep.trial_record import TrialRecord

ASHA = {
    "_target_": "optuna.pruners.SuccessiveHalvingPruner",
    "min_resource": 1,
    "reduction_factor": 2,
}

# ("report", step, value, *others), then ("end", state, value) or ("end", state, value, error)
Script = Iterator[tuple[Any, ...]]


class SimulatedEngine:
    """Runs one step of a random busy slot per poll."""

    num_cores = 4
    threads = 1

    def __init__(self, script: Callable[[Job], Script], num_slots: int = 2, seed: int = 0) -> None:
        self.num_slots = num_slots
        self.submitted: list[Job] = []
        self.most_at_once = 0
        self.stopping = False
        self._script = script
        self._busy: dict[str, Script] = {}
        self._answers: dict[str, bool] = {}
        self._paused: set[str] = set()
        self._dice = random.Random(seed)
        self._now = 0.0

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self._busy)

    def submit(self, job: Job) -> None:
        assert self.num_free > 0
        assert job.key not in self._busy
        self.submitted.append(job)
        self._busy[job.key] = self._begin(job)
        self.most_at_once = max(self.most_at_once, len(self._busy))

    def _begin(self, job: Job) -> Script:
        yield ("started",)
        yield from self._script(job)

    def poll(self, timeout_seconds: float) -> list[Event]:
        self._now += 1.0
        waiting = [
            key for key in self._busy if key not in self._answers or self._answers[key] is not None
        ]
        if not waiting:
            return []
        key = self._dice.choice(waiting)
        if self._answers.pop(key, False):
            return [self._end(key, "pruned", None)]
        if key in self._paused:
            self._paused.remove(key)
            return [self._end(key, "stopped", None)]
        kind, *rest = next(self._busy[key])
        if kind == "started":
            return [Started(key, 0, self._now)]
        if self.stopping:
            return [self._end(key, "stopped", None)]
        if kind == "report":
            return [Reported(key, rest[0], rest[1], tuple(rest[2:]))]
        return [self._end(key, *rest)]

    def _end(self, key: str, state: Any, value: Any, error: str | None = None) -> Ended:
        del self._busy[key]
        return Ended(key, state, value, error=error, started=0.0, ended=self._now)

    def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
        self._answers[key] = prune
        if pause:
            self._paused.add(key)

    def stop(self) -> None:
        self.stopping = True

    def close(self) -> None: ...


class FlatJobs:
    """Overrides are the parameters and the seed; composing returns them."""

    def overrides(self, number: int, params: Mapping[str, Any], seed_index: int) -> tuple[str, ...]:
        return (*(f"{key}={value}" for key, value in params.items()), f"seed={seed_index}")

    def compose(self, overrides: Sequence[str]) -> Any:
        return {"composed": tuple(overrides)}


class Silent:
    """A display that keeps its records and notes."""

    def __init__(self) -> None:
        self.records: list[TrialRecord] = []
        self.notes: list[str] = []

    def started(self, number: int, attempt: int, slot: int, params: Mapping[str, Any]) -> None: ...
    def reported(self, number: int, step: int, value: float) -> None: ...
    def paused(self, number: int) -> None: ...
    def ended(self, record: TrialRecord, is_best: bool) -> None:
        self.records.append(record)

    def refresh(self, status: Status) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None: ...


def continuous(trial: Trial) -> None:
    trial._suggest("x", FloatDistribution(0.0, 1.0))


def discrete(trial: Trial) -> None:
    trial._suggest("x", CategoricalDistribution([0.25, 0.5, 0.75]))


def x_of(job: Job) -> float:
    [text] = [o for o in job.overrides if o.startswith("x=")]
    return float(text.removeprefix("x="))


def plain(job: Job) -> Script:
    """Reach x in three epochs."""
    for step in (1, 2, 3):
        yield ("report", step, x_of(job) * step / 3)
    yield ("end", "completed", x_of(job))


class Setup:
    """A sweep that can run several times, with a new controller on the same storage."""

    def __init__(self, folder: Path, script: Callable[[Job], Script] = plain, **keys: Any) -> None:
        self.folder = folder
        self.script = script
        self.num_slots = keys.pop("num_slots", 2)
        self.suggest = keys.pop("suggest", continuous)
        self.n_trials = keys.pop("n_trials", 8)
        self.epochs = keys.pop("epochs", None)
        self.check = keys.pop("check", dict)
        self.look = keys.pop("look", None)
        if self.look is not None:
            keys["confirm"] = "multirun/faces"
        self.requests: list[int] = []
        self.storage = InMemoryStorage()
        self.settings = sweep_settings(**keys)
        self.written: list[list[TrialRecord]] = []

    def run(self, seed: int = 0) -> SweepEnd:
        self.engine = SimulatedEngine(self.script, self.num_slots, seed)
        self.display = Silent()
        self.study = SweepStudy(
            self.storage,
            "s",
            self.settings.directions,
            owner="a",
            make_sampler=sampler_factory(self.settings.sampler, 0),
            pruner=build_pruner(self.settings.pruner),
            prune_by=self.settings.prune_by,
            race_seeds=self.settings.seeds if self.settings.races else None,
            suggest=self.suggest,
            check=self.check,
        )
        controller = Controller(
            self.study,
            self.engine,
            FlatJobs(),
            self.settings,
            n_trials=self.n_trials,
            sweep_dir=self.folder,
            display=self.display,
            write=self.written.append,
            requests=self.requests,
            epochs=self.epochs,
            look=self.look,
        )
        end = controller.run()
        self.records = controller.records()
        return end

    def stored(self) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="s", storage=self.storage).trials

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.stored()]


def test_every_slot_is_busy_and_every_trial_counts_once(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, num_slots=3)
    assert sweep.run() == SweepEnd(0, None)
    assert sweep.engine.most_at_once == 3
    assert [t.number for t in sweep.stored()] == list(range(8))
    assert all(t.value == t.params["x"] for t in sweep.stored())
    assert sorted(job.key for job in sweep.engine.submitted) == sorted(map(str, range(8)))
    assert [r.number for r in sweep.written[-1]] == list(range(8))


def test_n_trials_is_a_total_over_runs(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, n_trials=3)
    sweep.run()
    before = [(t.number, t.params, t.value) for t in sweep.stored()]
    sweep.run()
    assert sweep.engine.submitted == []
    sweep.n_trials = 5
    sweep.run()
    assert [job.key for job in sweep.engine.submitted] == ["3", "4"]
    assert [(t.number, t.params, t.value) for t in sweep.stored()][:3] == before


def test_losing_trials_are_pruned_and_keep_their_record(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, pruner=ASHA, n_trials=16)
    assert sweep.run().code == 0
    assert sweep.states().count("PRUNED") >= 4
    assert sweep.states().count("FAIL") == 0
    for record in sweep.records:
        if record.state == "pruned":
            assert record.epochs is not None
            assert record.epochs < 3
            assert record.values == (pytest.approx(record.params["x"] * record.epochs / 3),)
    best = max(sweep.stored(), key=lambda t: t.params["x"])
    assert best.state == TrialState.COMPLETE


@pytest.mark.parametrize(("epochs", "is_pruned"), [(1, False), (2, True)])
def test_a_trial_at_its_last_epoch_is_not_pruned(
    tmp_path: Path, epochs: int, is_pruned: bool
) -> None:
    def script(job: Job) -> Script:
        yield ("report", 1, x_of(job))  # at a rung
        yield ("end", "completed", x_of(job))

    sweep = Setup(tmp_path, script, pruner=ASHA, epochs=epochs)
    sweep.run()
    assert ("PRUNED" in sweep.states()) == is_pruned


# -- failures


def failing(*numbers: int, error: str = "ValueError: no") -> Callable[[Job], Script]:
    """Return a script that fails the trials with these numbers."""

    def script(job: Job) -> Script:
        if job.number in numbers:
            yield ("end", "failed", None, error)
        yield from plain(job)

    return script


def test_a_lost_trial_is_retried_under_its_number(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        if job.number == 1 or (job.number == 2 and job.attempt == 0):
            yield ("end", "lost", None, "killed by signal 9")
        yield ("end", "completed", x_of(job))

    sweep = Setup(tmp_path, script, n_trials=4)
    sweep.run()
    jobs = [job for job in sweep.engine.submitted if job.number in (1, 2)]
    attempts = sorted((job.key, job.attempt) for job in jobs)
    assert attempts == [("1", 0), ("1", 1), ("1", 2), ("2", 0), ("2", 1)]
    assert len({job.overrides for job in jobs if job.key == "1"}) == 1
    assert sweep.states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert sweep.records[1].error == "killed by signal 9"
    assert (tmp_path / "1" / TRIAL_ERROR).read_text() == "killed by signal 9\n"


def test_an_exception_fails_one_trial_and_is_not_retried(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, failing(2))
    assert sweep.run().code == 0
    assert sweep.states().count("FAIL") == 1
    assert sweep.records[2].error == "ValueError: no"
    assert len([job for job in sweep.engine.submitted if job.number == 2]) == 1
    sweep.run()
    assert sweep.engine.submitted == []


def test_too_many_failures_end_the_sweep_after_ten_trials(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, failing(*range(3, 50)), n_trials=50, num_slots=1)
    reason = "7 of 10 trials failed (hydra.sweeper.max_failure_rate=0.5)"
    assert sweep.run() == SweepEnd(1, reason)
    assert len(sweep.stored()) == 10


def test_without_tolerance_the_first_failure_ends_the_sweep(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, failing_first, num_slots=1, max_failure_rate=0.0)
    end = sweep.run()
    assert (end.code, sweep.states()) == (1, ["FAIL"])
    assert end.reason == "1 of 1 trials failed (hydra.sweeper.max_failure_rate=0)"


def failing_first(job: Job) -> Script:
    yield ("report", 1, 0.5)
    yield ("end", "failed", None, "ValueError: bug") if job.number == 0 else ("end", "completed", 1)


def test_failed_trials_run_again_under_their_numbers(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, failing_first, n_trials=3)
    sweep.run()
    before = [(t.number, t.params, t.value) for t in sweep.stored()]
    assert (tmp_path / "0" / TRIAL_ERROR).exists()
    sweep.script = plain
    sweep.run()
    assert sweep.states()[0] == "FAIL"
    sweep.settings = replace(sweep.settings, rerun_failed=True)
    assert sweep.run().code == 0
    assert sweep.display.notes == ["running 1 failed trial again: #0"]
    assert [(job.key, job.attempt) for job in sweep.engine.submitted] == [("0", 1)]
    first, *others = [(t.number, t.params, t.value) for t in sweep.stored()]
    assert first == (0, before[0][1], before[0][1]["x"])
    assert others == before[1:]
    assert sweep.records[0].error is None
    assert not (tmp_path / "0" / TRIAL_ERROR).exists()


def test_a_full_disk_pauses_the_sweep_and_burns_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both trials run out of space; the disk has room again after a hundred looks at it."""
    free = iter([0] * 100)
    monkeypatch.setattr(pause, "_free_bytes", lambda folder: next(free, 10_000_000))

    def script(job: Job) -> Script:
        yield ("report", 1, 0.1)
        if job.number in (1, 2) and next(free, None) is not None:
            yield ("end", "out_of_space", None, "OSError: [Errno 28] No space left on device")
        yield from plain(job)

    sweep = Setup(tmp_path, script, retries=0, n_trials=5)
    assert sweep.run().code == 0
    assert sweep.states() == ["COMPLETE"] * 5
    assert [record.retries for record in sweep.records] == [0] * 5
    paused, again = sweep.display.notes
    assert paused.startswith("paused: #")
    assert "No space left on device. Trials resume when there is room" in paused
    assert again == "there is room again"


def test_the_mean_of_huge_values_is_no_overflow(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("end", "completed", 1.5e308)

    sweep = Setup(tmp_path, script, seeds=2, n_trials=1)
    assert sweep.run().code == 0
    assert sweep.stored()[0].value == 1.5e308


def test_ctrl_c_ends_a_paused_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Setup(tmp_path, n_trials=5)

    def full(folder: Path) -> int:
        sweep.requests.append(2)
        return 0

    monkeypatch.setattr(pause, "_free_bytes", full)
    sweep.script = lambda job: iter([("end", "out_of_space", None, "OSError: full")])
    assert sweep.run().is_interrupted
    assert "FAIL" not in sweep.states()


def test_without_a_visible_change_a_trial_is_tried_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(pause.time, "monotonic", lambda: now)
    monkeypatch.setattr(pause, "_free_bytes", lambda folder: 0)
    waiting = pause.Pause(tmp_path)
    assert not waiting.is_on()
    waited = []
    for _ in range(8):
        assert waiting.begin() is (not waited)  # said once
        waiting.begin()  # of a trial that ran beside it
        began = now
        while waiting.is_on():
            now += 1.0
        waited.append(now - began)
    assert waited == [10, 20, 40, 80, 160, 300, 300, 300]
    assert waiting.end() is True
    assert waiting.end() is False
    assert waiting.begin() is True


def test_a_trial_that_is_enqueued_with_optuna_runs_next(tmp_path: Path) -> None:
    """Before the sweep starts, while it runs, and when it has ended."""
    sweep = Setup(tmp_path, n_trials=3, num_slots=1)
    sweep.run()
    others = optuna.load_study(study_name="s", storage=sweep.storage)

    def enqueues(job: Job) -> Script:
        if job.number == 3:
            others.enqueue_trial({"x": 0.625})
        yield ("end", "completed", x_of(job))

    others.enqueue_trial({"x": 0.75})
    sweep.script, sweep.n_trials = enqueues, 4
    assert sweep.run().code == 0
    assert [(t.params["x"], t.value) for t in sweep.stored()[3:]] == [(0.75, 0.75), (0.625, 0.625)]
    others.ask()  # as a dashboard may: a running trial without parameters
    sweep.run()
    assert [job.key for job in sweep.engine.submitted] == ["5"]
    assert sweep.states() == ["COMPLETE"] * 6


def test_an_enqueued_trial_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    def check(given: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ConfigError("enqueued with Optuna: y is not searched")

    sweep = Setup(tmp_path, n_trials=3, num_slots=1, check=check)
    sweep.run()
    optuna.load_study(study_name="s", storage=sweep.storage).enqueue_trial({"y": 1})
    sweep.n_trials = 5
    assert sweep.run().code == 0
    assert sweep.states() == ["COMPLETE"] * 3 + ["FAIL", "COMPLETE"]
    [failed] = [record for record in sweep.display.records if record.state == "failed"]
    assert (failed.number, failed.error) == (3, "enqueued with Optuna: y is not searched")


def test_a_sweep_without_a_result_is_a_failure(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, failing(0, 1, 2), n_trials=3)
    assert sweep.run().code == 1
    assert sweep.states() == ["FAIL"] * 3


def test_nan_fails_its_trial_only(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("end", "completed", float("nan") if job.number == 0 else x_of(job))

    sweep = Setup(tmp_path, script, num_slots=1, n_trials=3)
    assert sweep.run().code == 0
    assert sweep.states() == ["FAIL", "COMPLETE", "COMPLETE"]
    assert sweep.records[0].error == "the objective is not finite: nan"


@pytest.mark.parametrize("value", [None, "0.5x", {"f1": 1}, (1.0, 2.0)])
def test_a_return_value_that_is_no_number_ends_the_sweep(tmp_path: Path, value: object) -> None:
    sweep = Setup(tmp_path, lambda job: iter([("end", "completed", value)]), num_slots=1)
    end = sweep.run()
    assert end.code == 1
    assert str(end.reason).startswith("trial 0: ")
    assert sweep.states() == ["FAIL"]


# -- interruptions


def test_an_interrupted_sweep_leaves_trials_running_and_is_resumed(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, n_trials=6)

    def interrupted(job: Job) -> Script:
        if job.number == 3:
            sweep.requests.append(2)
        yield from plain(job)

    sweep.script = interrupted
    assert sweep.run() == SweepEnd(130, "interrupted", is_interrupted=True)
    states = sweep.states()
    assert "RUNNING" in states
    started = {job.number for job in sweep.engine.submitted}
    starts = {r.number: r.start for r in sweep.records if r.number in started}
    for number in started:
        (tmp_path / str(number)).mkdir(exist_ok=True)
    params = [t.params for t in sweep.stored()]
    sweep.script, sweep.requests = plain, []
    assert sweep.run().code == 0
    resumed = {job.number: job.attempt for job in sweep.engine.submitted}
    for number, state in enumerate(states):
        if state == "RUNNING":
            assert resumed.pop(number) == int(number in started)
    assert sorted(resumed) == list(range(len(states), 6))
    assert [t.params for t in sweep.stored()][: len(params)] == params
    assert set(sweep.states()) == {"COMPLETE"}
    # A resumed trial began when it was first started.
    assert {n: sweep.records[n].start for n in starts} == starts


def test_a_second_request_stops_at_once(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, n_trials=6)

    def impatient(job: Job) -> Script:
        sweep.requests += [2, 2]
        yield from plain(job)

    sweep.script = impatient
    assert sweep.run().code == 130
    assert set(sweep.states()) == {"RUNNING"}
    assert len(sweep.engine.submitted) == 2
    # It did not wait for a trial to stop.
    assert not [note for note in sweep.display.notes if "stopped" in note]


def test_one_worker_gives_the_same_study_after_any_interruption(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"pruner": ASHA, "num_slots": 1, "n_trials": 12}
    whole = Setup(tmp_path / "a", **keys)
    whole.run()
    cut = Setup(tmp_path / "b", **keys)
    for total in range(12):

        def script(job: Job, last: int = total) -> Script:
            if job.number >= last and job.attempt == 0:
                (tmp_path / "b" / str(job.number)).mkdir(parents=True, exist_ok=True)
                cut.requests.append(2)
            yield from plain(job)

        cut.script, cut.requests = script, []
        cut.run()
    cut.script, cut.requests = plain, []
    cut.run()
    assert [(t.params, t.values, t.state) for t in cut.stored()] == [
        (t.params, t.values, t.state) for t in whole.stored()
    ]


# -- repeated configurations


def test_a_repeated_configuration_takes_the_stored_value_and_counts(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, suggest=discrete, n_trials=12)
    sweep.run()
    assert len(sweep.engine.submitted) == 3  # one per configuration
    assert len(sweep.stored()) == 12
    assert all(t.state == TrialState.COMPLETE and t.value == t.params["x"] for t in sweep.stored())
    originals = {job.number for job in sweep.engine.submitted}
    for record in sweep.records:
        assert (record.duplicate_of is None) == (record.number in originals)
        if record.duplicate_of is not None:
            assert record.directory == str(record.duplicate_of)


def test_a_failed_configuration_is_tried_again(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, failing(0), suggest=discrete, n_trials=12)
    sweep.run()
    assert len(sweep.engine.submitted) == 4
    assert sweep.records[0].state == "failed"


# -- seeds


def seed_of(job: Job) -> int:
    return int(job.overrides[-1].removeprefix("seed="))


def test_the_value_is_the_mean_over_seeds_and_each_seed_is_a_job(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("report", 1, 0.0)
        yield ("end", "completed", x_of(job) + seed_of(job))

    sweep = Setup(tmp_path, script, seeds=3, seeds_for="all", n_trials=3)
    assert sweep.run().code == 0
    keys = [job.key for job in sweep.engine.submitted if job.number == 1]
    assert keys == ["1/seed_0", "1/seed_1", "1/seed_2"]
    for record in sweep.records:
        x = record.params["x"]
        assert record.seed_values == (x, x + 1, x + 2)
        assert record.values == (pytest.approx(x + 1),)
        assert record.epochs == 3  # one per seed


def test_epoch_pruners_look_at_the_first_seed_only(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("report", 1, x_of(job) if job.key.endswith("seed_0") else -1e9)
        yield ("end", "completed", x_of(job))

    sweep = Setup(tmp_path, script, seeds=2, n_trials=8, pruner=ASHA)
    sweep.run()
    assert set(sweep.states()) == {"COMPLETE", "PRUNED"}
    assert all(min(t.intermediate_values.values()) >= 0 for t in sweep.stored())


WILCOXON = {
    "_target_": "optuna.pruners.WilcoxonPruner",
    "p_threshold": 0.2,
    "n_startup_steps": 2,
}


def test_wilcoxon_ends_a_trial_between_seeds(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        value = (1.0 if job.number == 0 else -job.number) + 0.01 * seed_of(job)
        yield ("end", "completed", value)

    sweep = Setup(tmp_path, script, seeds=6, n_trials=4, pruner=WILCOXON, num_slots=1)
    assert sweep.run().code == 0
    jobs = [sum(job.number == n for job in sweep.engine.submitted) for n in range(4)]
    assert jobs[0] == 6
    assert all(2 < count < 6 for count in jobs[1:])
    assert [r.state for r in sweep.records] == ["complete", "pruned", "pruned", "pruned"]
    assert sweep.records[1].values == (pytest.approx(sum(sweep.records[1].seed_values) / jobs[1]),)


@pytest.mark.parametrize("part", ["seed", "fold"])
def test_an_interrupted_trial_resumes_at_its_run(tmp_path: Path, part: str) -> None:
    parts = {"seed": {"seeds": 3}, "fold": FOLDS}[part]
    sweep = Setup(tmp_path, n_trials=1, num_slots=1, **parts)

    def script(job: Job) -> Script:
        if job.key == f"0/{part}_1":
            sweep.requests.append(2)
        yield from plain(job)

    sweep.script = script
    sweep.run()
    (tmp_path / "0").mkdir()
    sweep.script, sweep.requests = plain, []
    assert sweep.run().code == 0
    assert [job.key for job in sweep.engine.submitted] == [f"0/{part}_1", f"0/{part}_2"]
    assert len(getattr(sweep.records[0], f"{part}_values")) == 3
    assert sweep.records[0].epochs == 9


@pytest.mark.parametrize(
    ("pruner", "state", "value"), [(None, "complete", 0.3), (WILCOXON, "pruned", 0.15)]
)
def test_a_death_after_the_last_seed_adds_no_seed(
    tmp_path: Path, pruner: dict[str, Any] | None, state: str, value: float
) -> None:
    """The notes and the decision are stored, but not the trial's end."""
    sweep = Setup(tmp_path, seeds=3, n_trials=1, num_slots=1, pruner=pruner)
    sweep.requests += [2, 2]
    sweep.run()
    number = sweep.study.ask()
    sweep.study.notes(number).seed_values = [0.1, 0.2, 0.6][: 2 if pruner else 3]
    sweep.study.save_notes(number)
    if pruner:
        [trial] = sweep.storage.get_all_trials(0)
        sweep.storage.set_trial_system_attr(trial._trial_id, "sweep:pruned_at", 2)
    sweep.requests = []
    sweep.run()
    assert sweep.engine.submitted == []
    assert sweep.records[0].state == state
    assert sweep.records[0].values == (pytest.approx(value),)


# -- folds

FOLDS = {"folds": 3, "fold_key": "fold", "folds_key": "num_folds"}


def predict(folder: Path, job: Job, targets: Sequence[int], preds: Sequence[int]) -> None:
    """Leave what a finished run of the job's fold leaves, with these predictions."""
    ids = [f"{job.key}/{i}" for i in range(len(targets))]
    logits = np.eye(2, dtype=np.float32)[list(preds)]
    objective = {"metric": "val/f1_macro", "direction": "maximize", "value": 0.5}
    make_finished_run(
        folder / job.key,
        split_of(logits, np.array(targets, dtype=np.int64), ids),
        config={"objective": {"metric": "val/f1_macro"}},
        result={"objective": objective, "others": {}},
    )


def test_the_value_is_the_metric_of_the_pooled_predictions(tmp_path: Path) -> None:
    targets = [[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    preds = [[0, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 1]]

    def script(job: Job) -> Script:
        fold = int(job.key[-1])
        predict(tmp_path, job, targets[fold], preds[fold])
        yield ("report", 1, 0.0)
        yield ("end", "completed", 0.1 * fold)

    sweep = Setup(tmp_path, script, n_trials=2, **FOLDS)
    assert sweep.run().code == 0
    keys = [job.key for job in sweep.engine.submitted if job.number == 1]
    assert keys == ["1/fold_0", "1/fold_1", "1/fold_2"]
    expected = f1_score(np.ravel(targets), np.ravel(preds), average="macro")
    for record in sweep.records:
        assert record.values == (pytest.approx(expected),)
        assert record.fold_values == (0.0, 0.1, 0.2)
        assert record.fold_mean == pytest.approx(0.1)
        assert record.fold_std == pytest.approx(0.1)
        assert record.seed_values == ()
        assert record.epochs == 3
    [first, _] = sweep.stored()
    assert first.user_attrs["fold_values"] == [0.0, 0.1, 0.2]
    assert first.user_attrs["fold_mean"] == pytest.approx(0.1)
    assert sweep.display.notes == []


def test_with_seeds_too_the_value_is_the_mean_over_seeds_of_the_pooled_metric(
    tmp_path: Path,
) -> None:
    def script(job: Job) -> Script:
        wrong = [0, 1] if "seed_0" in job.key else [1, 0]
        predict(tmp_path, job, [0, 1, 0, 1], [0, 1, *wrong])
        yield ("end", "completed", 0.7)

    sweep = Setup(tmp_path, script, n_trials=1, seeds=2, num_slots=1, **FOLDS)
    assert sweep.run().code == 0
    keys = [job.key for job in sweep.engine.submitted]
    assert keys == [f"0/seed_{seed}/fold_{fold}" for seed in range(2) for fold in range(3)]
    [record] = sweep.records
    assert record.seed_values == (1.0, 0.5)
    assert record.values == (0.75,)


def test_folds_without_predictions_have_the_mean_as_value_and_a_line_says_so(
    tmp_path: Path,
) -> None:
    def script(job: Job) -> Script:
        yield ("end", "completed", float(job.key[-1]))

    sweep = Setup(tmp_path, script, n_trials=2, **FOLDS)
    sweep.run()
    assert [record.values for record in sweep.records] == [(1.0,), (1.0,)]
    assert sweep.display.notes == [
        "folds: the runs left no predictions, so a trial's value is the mean of its folds"
    ]


def test_damaged_predictions_fail_the_trial_with_their_name(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        predict(tmp_path, job, [0, 1], [0, 1])
        if job.key == "0/fold_2":
            (tmp_path / job.key / PREDICTIONS).write_bytes(b"no archive")
        yield ("end", "completed", 1.0)

    sweep = Setup(tmp_path, script, n_trials=2, **FOLDS)
    sweep.run()
    assert [record.state for record in sweep.records] == ["failed", "complete"]
    assert "0/fold_2/predictions.npz" in str(sweep.records[0].error)


def test_epoch_pruners_look_at_the_first_fold_only(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("report", 1, x_of(job) if job.key.endswith("fold_0") else -1e9)
        yield ("end", "completed", x_of(job))

    sweep = Setup(tmp_path, script, n_trials=8, pruner=ASHA, **FOLDS)
    sweep.run()
    assert set(sweep.states()) == {"COMPLETE", "PRUNED"}
    assert all(min(t.intermediate_values.values()) >= 0 for t in sweep.stored())


def test_wilcoxon_ends_a_trial_between_folds(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        value = (1.0 if job.number == 0 else -job.number) + 0.01 * int(job.key[-1])
        yield ("end", "completed", value)

    folds = FOLDS | {"folds": 6}
    sweep = Setup(tmp_path, script, n_trials=3, pruner=WILCOXON, num_slots=1, **folds)
    sweep.run()
    assert [r.state for r in sweep.records] == ["complete", "pruned", "pruned"]
    values = sweep.records[1].fold_values
    assert 2 < len(values) < 6
    assert sweep.records[1].values == (pytest.approx(sum(values) / len(values)),)


# -- rounds: a confirmation


def test_every_trial_runs_a_seed_before_one_runs_the_next(tmp_path: Path) -> None:
    looks: list[tuple[int, list[int]]] = []

    def look(rounds: int, numbers: Sequence[int]) -> tuple[str | None, bool]:
        looks.append((rounds, list(numbers)))
        return f"round {rounds}", False

    sweep = Setup(tmp_path, seeds=3, n_trials=4, num_slots=1, look=look)
    assert sweep.run().code == 0
    keys = [job.key for job in sweep.engine.submitted]
    assert keys == [f"{n}/seed_{seed}" for seed in range(3) for n in range(4)]
    assert looks == [(rounds, [0, 1, 2, 3]) for rounds in (1, 2, 3)]
    assert sweep.display.notes == ["round 1", "round 2", "round 3"]
    assert all(len(record.seed_values) == 3 for record in sweep.records)


def test_all_folds_of_a_seed_come_before_the_next_trial(tmp_path: Path) -> None:
    look = lambda rounds, numbers: (None, False)  # noqa: E731
    sweep = Setup(tmp_path, seeds=2, n_trials=2, num_slots=1, look=look, **FOLDS)
    sweep.run()
    keys = [job.key for job in sweep.engine.submitted]
    assert keys == [
        f"{n}/seed_{seed}/fold_{fold}" for seed in range(2) for n in range(2) for fold in range(3)
    ]


@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_a_clear_answer_ends_the_sweep_with_the_same_seeds_for_all(
    tmp_path: Path, num_slots: int
) -> None:
    def look(rounds: int, numbers: Sequence[int]) -> tuple[str | None, bool]:
        return None, rounds == 3

    def script(job: Job) -> Script:
        yield ("report", 1, 0.0)
        yield ("end", "completed", x_of(job) + seed_of(job))

    sweep = Setup(tmp_path, script, seeds=10, n_trials=3, num_slots=num_slots, look=look)
    end = sweep.run()
    assert (end.code, end.reason) == (0, "the answer is clear after 3 of 10 seeds")
    for record in sweep.records:
        x = record.params["x"]
        assert record.state == "complete"
        assert record.seed_values == (x, x + 1, x + 2)
        assert record.values == (pytest.approx(x + 1),)
    if num_slots == 1:
        assert len(sweep.engine.submitted) == 9
    assert not any("resumes" in note for note in sweep.display.notes)
    sweep.run()
    assert sweep.engine.submitted == []  # nothing is left to do


def test_a_confirmation_that_died_after_its_answer_finds_it_again(tmp_path: Path) -> None:
    """The last seed of round 2 is stored, but neither the answer nor the trials' ends."""
    answers = iter([False, False])

    def undecided(rounds: int, numbers: Sequence[int]) -> tuple[str | None, bool]:
        is_last = not next(answers) and rounds == 2
        if is_last:
            sweep.requests.extend([2, 2])
        return None, False

    sweep = Setup(tmp_path, seeds=5, n_trials=2, num_slots=1, look=undecided)
    sweep.run()
    assert sweep.states() == ["RUNNING", "RUNNING"]
    sweep.requests = []
    sweep.look = lambda rounds, numbers: (None, rounds == 2)
    assert sweep.run().code == 0
    assert sweep.engine.submitted == []
    assert [len(record.seed_values) for record in sweep.records] == [2, 2]


def test_a_candidate_that_fails_is_left_out_and_a_baseline_ends_the_sweep(tmp_path: Path) -> None:
    looks: list[list[int]] = []

    def look(rounds: int, numbers: Sequence[int]) -> tuple[str | None, bool]:
        looks.append(list(numbers))
        return None, False

    def script(job: Job) -> Script:
        yield (
            "end",
            *(("failed", None, "ValueError: no") if job.key == bad else ("completed", 1.0)),
        )

    bad = "1/seed_1"
    sweep = Setup(tmp_path / "a", script, seeds=3, n_trials=3, num_slots=1, look=look)
    assert sweep.run().code == 0
    assert looks == [[0, 1, 2], [0, 2], [0, 2]]
    bad = "0/seed_1"
    sweep = Setup(tmp_path / "b", script, seeds=3, n_trials=3, num_slots=1, look=look)
    end = sweep.run()
    assert end.code == 1
    assert end.reason == "the baseline failed, so there is nothing to compare with"


def test_without_a_candidate_left_the_baseline_runs_no_more_seeds(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield (
            "end",
            *(("completed", 1.0) if job.key.startswith("0/") else ("failed", None, "no memory")),
        )

    look = lambda rounds, numbers: (None, False)  # noqa: E731
    sweep = Setup(tmp_path, script, seeds=9, n_trials=3, num_slots=1, look=look)
    end = sweep.run()
    assert end.code == 1
    assert end.reason == "every configuration but the baseline failed, so nothing can be compared"
    assert [job.key for job in sweep.engine.submitted] == ["0/seed_0", "1/seed_0", "2/seed_0"]
    again = sweep.run()
    assert (again.code, again.reason) == (1, end.reason)
    assert sweep.engine.submitted == []


# -- limits


def test_a_target_value_ends_the_sweep(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, target_value=0.5, n_trials=50)
    assert sweep.run() == SweepEnd(0, "hydra.sweeper.target_value=0.5 is reached")
    assert max(t.value for t in sweep.stored() if t.value is not None) >= 0.5
    assert len(sweep.stored()) < 50


def test_no_improvement_ends_the_sweep(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("end", "completed", 1.0 if job.number == 2 else 0.0)

    sweep = Setup(tmp_path, script, max_trials_without_improvement=4, n_trials=50, num_slots=1)
    assert sweep.run().code == 0
    assert len([t for t in sweep.stored() if t.state.is_finished()]) == 7


def test_a_timeout_ends_the_sweep(tmp_path: Path) -> None:
    sweep = Setup(tmp_path, timeout_seconds=0.2, n_trials=100_000)
    assert sweep.run().reason == "hydra.sweeper.timeout_seconds=0.2 is over"
    assert 0 < len(sweep.stored()) < 10_000


def test_the_time_left_shrinks_within_a_trial() -> None:
    tally = Tally(["maximize"])
    assert tally.seconds_left(10, 2, []) is None
    for number, seconds in enumerate((10.0, 30.0)):
        record = TrialRecord(
            number, "complete", (0.5,), {}, 0.0, 99.0, None, str(number), seconds=seconds
        )
        tally.add_duration(record)
        tally.add(record)
    assert tally.seconds_left(10, 2, []) == 80.0  # 8 trials of 20 s on 2 workers
    assert tally.seconds_left(10, 2, [5.0, 11.0]) == 72.0
    assert tally.seconds_left(10, 2, [500.0]) == 70.0  # an overdue trial counts as almost done


# -- objectives


def test_several_objectives(tmp_path: Path) -> None:
    def script(job: Job) -> Script:
        yield ("report", 1, x_of(job))
        yield ("end", "completed", (x_of(job), 1 - x_of(job)))

    sweep = Setup(tmp_path, script, direction=["maximize", "minimize"])
    assert sweep.run().code == 0
    assert all(t.values == [t.params["x"], 1 - t.params["x"]] for t in sweep.stored())


BOTH = {"direction": ["maximize", "minimize"], "pruner": ASHA}


@pytest.mark.parametrize(
    ("prune_by", "states"),
    [("first_objective", "COMPLETE PRUNED PRUNED"), ("dominated", "COMPLETE COMPLETE PRUNED")],
)
def test_a_losing_trial_of_several_objectives_ends(
    tmp_path: Path, prune_by: str, states: str
) -> None:
    points = {0: (0.9, 5.0), 1: (0.2, 1.0), 2: (0.1, 3.0)}  # the last is dominated by the second

    def script(job: Job) -> Script:
        for step in (1, 2):
            yield ("report", step, *points[job.number])
        yield ("end", "completed", points[job.number])

    sweep = Setup(tmp_path, script, n_trials=3, num_slots=1, prune_by=prune_by, **BOTH)
    assert sweep.run().code == 0
    stored = sweep.stored()
    assert " ".join(trial.state.name for trial in stored) == states
    assert [trial.values for trial in stored] == [list(points[number]) for number in range(3)]
    assert {r.number for r in sweep.records if r.state == "complete"} >= {0}


@pytest.mark.parametrize(
    ("prune_by", "others", "is_wrong"),
    [
        ("first_objective", (), False),
        ("first_objective", (1.0, 2.0), True),
        ("dominated", (), True),
        ("dominated", (1.0,), False),
    ],
)
def test_a_report_with_a_wrong_number_of_values_ends_the_sweep(
    tmp_path: Path, prune_by: str, others: tuple[float, ...], is_wrong: bool
) -> None:
    def script(job: Job) -> Script:
        yield ("report", 1, 0.5, *others)
        yield ("end", "completed", (0.5, 1.0))

    sweep = Setup(tmp_path, script, n_trials=1, prune_by=prune_by, **BOTH)
    end = sweep.run()
    if is_wrong:
        problem = f"expected a report of 2 values, one per objective, got {1 + len(others)}"
        assert (end.code, end.reason) == (1, f"trial 0: {problem}")
    else:
        assert end.code == 0


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [(0.5, 1, [0.5]), (1, 1, [1.0]), ((1, 2), 2, [1.0, 2.0]), ([0.5], 1, [0.5]), ("0.5", 1, [0.5])],
)
def test_objectives(value: object, count: int, expected: list[float]) -> None:
    assert objectives(value, count) == (expected, None)
