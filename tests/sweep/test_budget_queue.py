"""Sweeps with a budget, on a simulated clock: they end in time with their best trial finished."""

import heapq
import random
import re
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from tests.sweep.records import sweep_settings
from tests.sweep.test_controller import FlatJobs, Silent, continuous, discrete, x_of
from visionsweep.sweep.budget import NO_LIMIT, Budget, spent_before, within_budget
from visionsweep.sweep.budget_queue import STORED
from visionsweep.sweep.controller import Controller, SweepEnd
from visionsweep.sweep.engines.engine import Ended, Event, Job, Reported, Started
from visionsweep.sweep.pace import Pace
from visionsweep.sweep.samplers import build_pruner, sampler_factory
from visionsweep.sweep.study import SweepStudy

EPOCHS = 10


class World:
    """What jobs cost, and how good they become, in simulated seconds."""

    start, resume, pause, end = 2.0, 0.5, 0.1, 0.3

    def __init__(self, seconds: float = 1.0, spread: float = 0.0, seed: int = 0) -> None:
        """An epoch takes ``seconds``, up to ``1 + spread`` times as long with some trials."""
        self.now = 0.0
        self.dice = random.Random(seed)
        self.seconds, self.spread = seconds, spread
        self.done: dict[int, int] = {}  # epochs that a trial has a checkpoint of
        self.trained: list[tuple[int, int]] = []

    def epoch_seconds(self, number: int, epoch: int) -> float:
        factor = 1 + self.spread * random.Random(number).random()
        return self.seconds * factor * self.dice.uniform(0.95, 1.05)

    def value(self, job: Job, epoch: int) -> float:
        return x_of(job) * (1 - 0.6**epoch)


class TimedEngine:
    """Slots whose jobs take simulated time; `poll` moves the clock to the next event."""

    num_cores = 4
    threads = 1

    def __init__(self, world: World, num_slots: int) -> None:
        self.num_slots, self._world = num_slots, world
        self._jobs: dict[str, Job] = {}
        self._queue: list[tuple[float, int, Event]] = []
        self._count = 0
        self.stopping = False

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self._jobs)

    def submit(self, job: Job) -> None:
        assert self.num_free > 0
        self._jobs[job.key] = job
        world = self._world
        self._after(0.0, Started(job.key, 0, world.now))
        done = world.done.get(job.number, 0)
        if done:
            self._after(world.resume, Reported(job.key, done, world.value(job, done)))
        else:
            self._train(job, 1, world.start)

    def _train(self, job: Job, epoch: int, delay: float = 0.0) -> None:
        seconds = delay + self._world.epoch_seconds(job.number, epoch)
        self._after(seconds, Reported(job.key, epoch, self._world.value(job, epoch)))

    def _after(self, seconds: float, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self._world.now + seconds, self._count, event))

    def poll(self, timeout_seconds: float) -> list[Event]:
        if not self._queue or (timeout_seconds == 0 and self._queue[0][0] > self._world.now):
            return []
        if self._queue[0][0] > self._world.now + timeout_seconds:
            self._world.now += timeout_seconds
            return []
        time, _, event = heapq.heappop(self._queue)
        self._world.now = max(self._world.now, time)
        if event.key not in self._jobs:
            return []
        if isinstance(event, Ended):
            del self._jobs[event.key]
        elif isinstance(event, Reported):
            job = self._jobs[event.key]
            if event.step > self._world.done.get(job.number, 0):
                self._world.trained.append((job.number, event.step))
            self._world.done[job.number] = event.step
        return [event]

    def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
        job, world = self._jobs[key], self._world
        if pause or self.stopping:
            self._end(key, "stopped", world.pause)
        elif world.done[job.number] == EPOCHS:
            self._end(key, "completed", world.end, world.value(job, EPOCHS))
        else:
            self._train(job, world.done[job.number] + 1)

    def _end(self, key: str, state: Any, seconds: float, value: float | None = None) -> None:
        self._after(seconds, Ended(key, state, value, started=0.0, ended=self._world.now))

    def stop(self) -> None:
        """After their current batch, which takes no time."""
        self.stopping = True
        for key in self._jobs:
            self._end(key, "stopped", 0.0)

    def close(self) -> None: ...


class Search:
    """A sweep with a budget that can run several times, with a new controller each."""

    def __init__(self, folder: Path, world: World, **keys: Any) -> None:
        self.folder, self.world = folder, world
        self.num_slots = keys.pop("num_slots", 2)
        self.make_engine = keys.pop("make_engine", TimedEngine)
        self.suggest = keys.pop("suggest", continuous)
        typed = ["hydra.sweeper.n_trials"] if "n_trials" in keys else []
        self.settings = within_budget(
            sweep_settings(**{"epochs_key": "epochs", "budget_minutes": 3.0} | keys), typed
        )
        self.storage = InMemoryStorage()
        self.requests: list[int] = []

    def run(self, minutes: float = 3.0) -> SweepEnd:
        self.display = Silent()
        self.engine = self.make_engine(self.world, self.num_slots)
        self.study = SweepStudy(
            self.storage,
            "s",
            self.settings.directions,
            owner="a",
            make_sampler=sampler_factory(self.settings.sampler, 0),
            pruner=build_pruner(self.settings.pruner),
            suggest=self.suggest,
        )
        self.budget = Budget(
            minutes,
            Pace(EPOCHS),
            self.num_slots,
            before=self.study.attribute(STORED),
            clock=lambda: self.world.now,
            say=self.display.note,
        )
        controller = Controller(
            self.study,
            self.engine,
            FlatJobs(),
            self.settings,
            n_trials=self.settings.n_trials or NO_LIMIT,
            sweep_dir=self.folder,
            display=self.display,
            write=lambda records: None,
            requests=self.requests,
            epochs=EPOCHS,
            budget=self.budget,
        )
        return controller.run()

    def trials(self) -> list[FrozenTrial]:
        return self.study.trials()

    def best(self) -> FrozenTrial:
        """The trial with the highest value that was reached by the end."""
        reported = [trial for trial in self.trials() if trial.intermediate_values]
        return max(reported, key=lambda trial: max(trial.intermediate_values.values()))


@pytest.mark.parametrize("num_slots", [1, 2, 4])
@pytest.mark.parametrize("seconds", [1.0, 5.0])
@pytest.mark.parametrize("spread", [0.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_ends_in_time_with_its_best_trial_finished(
    tmp_path: Path, num_slots: int, seconds: float, spread: float, seed: int
) -> None:
    world = World(seconds, spread, seed)
    search = Search(tmp_path, world, num_slots=num_slots)
    assert search.run().code == 0
    assert world.now <= 1.05 * 180
    best = search.best()
    assert best.state == TrialState.COMPLETE
    assert max(best.intermediate_values) == EPOCHS
    # the others wait for a larger budget; every epoch was trained once
    assert {trial.state for trial in search.trials()} <= {TrialState.COMPLETE, TrialState.RUNNING}
    assert len(set(world.trained)) == len(world.trained)


@pytest.mark.parametrize("num_slots", [1, 2])
def test_the_time_is_used(tmp_path: Path, num_slots: int) -> None:
    """It ends early by no more than what another trial would have needed."""
    world = World(1.0)
    search = Search(tmp_path, world, num_slots=num_slots)
    search.run()
    assert world.now > 0.95 * 180
    num_begun = len(search.trials())
    assert num_begun > 180 * num_slots / (world.start + 3 * (1.0 + world.resume)) / 2
    spent = spent_before(search.study.attribute(STORED))
    assert spent.seconds == pytest.approx(world.now, abs=1)
    assert spent.first == pytest.approx(num_begun, rel=0.1)
    assert spent.first + spent.on + spent.finishing == pytest.approx(len(world.trained), rel=0.1)


def test_the_plan_comes_true(tmp_path: Path) -> None:
    search = Search(tmp_path, World(1.0), num_slots=2)
    search.run()
    (plan,) = [note for note in search.display.notes if note.startswith("budget:")]
    found = re.match(
        r"budget: 3 min; (\S+) s per epoch, 10 epochs per trial; about (\d+) configurations", plan
    )
    assert found is not None
    assert float(found[1]) == pytest.approx(1.0, rel=0.05)
    expected = int(found[2])
    assert len(search.trials()) == pytest.approx(expected, rel=0.25)
    assert "none is begun after minute 2.8, then the best are trained to their end" in plan


def test_a_budget_for_one_trial_finishes_one(tmp_path: Path) -> None:
    world = World(14.0)  # 140 s and a start
    search = Search(tmp_path, world, num_slots=1)
    assert search.run().code == 0
    assert [t.state.name for t in search.trials()].count("COMPLETE") == 1
    assert world.now <= 1.05 * 180


def test_the_only_trial_may_end_a_little_late(tmp_path: Path) -> None:
    world = World(18.0)  # 180 s, and a start
    search = Search(tmp_path, world, num_slots=1)
    assert search.run().code == 0
    assert 180 < world.now <= 1.05 * 180
    assert [max(t.intermediate_values) for t in search.trials()] == [EPOCHS]


def test_a_first_epoch_that_took_long_is_not_taken_for_all(tmp_path: Path) -> None:
    class Warming(World):
        def epoch_seconds(self, number: int, epoch: int) -> float:
            return super().epoch_seconds(number, epoch) * (1.4 if self.now < 50 else 1)

    world = Warming(14.0)
    search = Search(tmp_path, world, num_slots=1)
    assert search.run().code == 0
    assert world.now <= 1.05 * 180


def test_what_turns_out_too_slow_is_given_up_early(tmp_path: Path) -> None:
    world = World(21.0)
    search = Search(tmp_path, world, num_slots=1)
    assert search.run().code == 1
    assert world.trained[-1][1] == 4
    assert world.now < 100


@pytest.mark.parametrize("num_slots", [1, 3])
def test_a_budget_in_which_no_trial_fits_ends_soon_in_one_line(
    tmp_path: Path, num_slots: int
) -> None:
    world = World(30.0)
    end = Search(tmp_path, world, num_slots=num_slots).run()
    assert end.code == 1
    assert end.reason is not None
    assert end.reason.startswith("hydra.sweeper.budget_minutes=3: no trial can be finished in the ")
    assert re.search(r"a whole one takes about [45] min \d\d s", end.reason)
    assert re.search(r"10 epochs of (29|30|31)\.\d s", end.reason)
    assert "Lower epochs, or go on with hydra.sweeper.budget_minutes=" in end.reason
    assert world.now < 80  # two epochs tell


def test_the_minutes_that_it_proposes_suffice(tmp_path: Path) -> None:
    search = Search(tmp_path, World(30.0), num_slots=1)
    reason = search.run().reason
    assert reason is not None
    minutes = float(reason.rpartition("=")[2])
    assert search.run(minutes).code == 0
    assert search.world.now <= 1.05 * 60 * minutes


def test_a_machine_that_slows_down_gets_the_best_trial_finished_all_the_same(
    tmp_path: Path,
) -> None:
    class Slowing(World):
        def epoch_seconds(self, number: int, epoch: int) -> float:
            return super().epoch_seconds(number, epoch) * (1 if self.now < 150 else 3)

    world = Slowing(4.0)
    search = Search(tmp_path, world, num_slots=1)
    assert search.run().code == 0
    assert search.best().state == TrialState.COMPLETE


def test_epochs_that_become_longer_are_allowed_for(tmp_path: Path) -> None:
    class Growing(World):
        def epoch_seconds(self, number: int, epoch: int) -> float:
            return super().epoch_seconds(number, epoch) * (1 if epoch <= 5 else 3)

    world = Growing(1.0)
    search = Search(tmp_path, world, num_slots=1)
    assert search.run().code == 0
    assert world.now <= 1.05 * 180
    assert search.best().state == TrialState.COMPLETE


def test_a_trial_that_fails_at_its_end_is_replaced_by_the_next_best(tmp_path: Path) -> None:
    class Failing(TimedEngine):
        def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
            job = self._jobs[key]
            if x_of(job) > 0.9 and self._world.done[job.number] == EPOCHS - 1:
                self._after(0.0, Ended(key, "failed", error="ValueError: no"))
            else:
                super().answer(key, prune=prune, pause=pause)

    world = World(1.0)
    search = Search(tmp_path, world, num_slots=1, make_engine=Failing)
    assert search.run().code == 0
    complete = [t for t in search.trials() if t.state == TrialState.COMPLETE]
    assert complete
    assert max(t.params["x"] for t in complete) <= 0.9
    assert world.now <= 1.05 * 180


def test_a_worker_that_dies_while_it_finishes_the_best_trial_is_made_up_for(tmp_path: Path) -> None:
    lost = []

    class Losing(TimedEngine):
        def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
            if self._world.now > 160 and not lost and not pause:
                lost.append(int(key))
                self._after(5.0, Ended(key, "lost", error="killed by signal 9"))
            else:
                super().answer(key, prune=prune, pause=pause)

    world = World(3.0)
    search = Search(tmp_path, world, num_slots=1, make_engine=Losing)
    assert search.run().code == 0
    assert search.trials()[lost[0]].state == TrialState.COMPLETE
    assert search.best().state == TrialState.COMPLETE
    assert world.now <= 1.05 * 180


def test_the_budget_is_that_of_the_study(tmp_path: Path) -> None:
    world = World(1.0)
    search = Search(tmp_path, world, num_slots=1)
    search.run()
    before = len(world.trained)
    assert search.run().code == 0  # nothing is left
    assert len(world.trained) == before
    ended = world.now
    assert search.run(minutes=5.0).code == 0
    assert world.now == pytest.approx(300, rel=0.05)
    assert world.now > ended
    assert len(world.trained) > before + 50
    assert len(set(world.trained)) == len(world.trained)


def test_what_was_used_before_a_sigkill_counts(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    world = World(1.0)
    search = Search(tmp_path, world, num_slots=1)

    class Killing(TimedEngine):
        def poll(self, timeout_seconds: float) -> list[Event]:
            if world.now > 100:
                raise Killed
            return super().poll(timeout_seconds)

    search.make_engine = Killing
    with pytest.raises(Killed):
        search.run()
    search.make_engine = TimedEngine
    assert spent_before(search.study.attribute(STORED)).seconds == pytest.approx(100, abs=4)
    assert search.run().code == 0
    assert world.now == pytest.approx(180, rel=0.05)
    assert search.best().state == TrialState.COMPLETE


def test_n_trials_is_an_upper_bound_if_it_was_typed(tmp_path: Path) -> None:
    search = Search(tmp_path, World(1.0), num_slots=1, n_trials=6)
    assert search.run() == SweepEnd(0, None)
    assert len(search.trials()) == 6
    assert {t.state for t in search.trials()} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_space_with_few_configurations_comes_to_an_end(tmp_path: Path) -> None:
    search = Search(tmp_path, World(1.0), num_slots=2, suggest=discrete)
    assert search.run() == SweepEnd(0, None)
    assert search.best().state == TrialState.COMPLETE
    assert search.best().params["x"] == 0.75
    assert search.world.now < 180
