"""Before and after a sweep: which directory is taken, what is started, which run is exported as the best."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from omegaconf import DictConfig

from tests.conftest import Compose
from visionsweep.callback import RunCallback, best_run
from visionsweep.rundir.journal import Journal, read_journal
from visionsweep.sweep.stored import Stored
from visionsweep.tracking import process

SWEEP_DIR = Path("multirun/s")
OURS = "hydra/sweeper=optuna_async"
DIRECTION = "hydra.sweeper.direction=maximize"

Configure = Callable[..., DictConfig]


@pytest.fixture
def configure(compose: Compose) -> Configure:
    """Return a function that composes what Hydra gives to a callback: of our sweeper, unless another is chosen."""

    def config(*overrides: str) -> DictConfig:
        sweeper = (
            [] if any(o.startswith("hydra/sweeper=") for o in overrides) else [OURS, DIRECTION]
        )
        return compose("study=s", *sweeper, *overrides, return_hydra_config=True)

    return config


def start(config: DictConfig) -> RunCallback:
    callback = RunCallback()
    callback.on_multirun_start(config=config)
    return callback


def finish_run(
    run_dir: Path, value: float, direction: str = "maximize", state: str = "finished"
) -> None:
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints/best.pt").touch()
    objective = {"metric": "val/f1_macro", "direction": direction, "value": value}
    result = {"state": state, "objective": objective, "best_epoch": 3}
    (run_dir / "result.json").write_text(json.dumps(result))


def store_sweep(task: list[str], hydra: list[str] | None = None) -> None:
    SWEEP_DIR.mkdir(parents=True, exist_ok=True)
    Stored(
        id="x",
        study_name="s",
        task_overrides=task,
        hydra_overrides=hydra or [],
        search={},
        config={},
        seed=0,
        git_commit=None,
    ).write(SWEEP_DIR)


def exported(run_dir: Path) -> list[int]:
    return [record["step"] for record in read_journal(run_dir) if record["type"] == "model"]


class TestUsedDirectory:
    def test_our_sweeper_takes_up_a_stored_sweep(self, configure: Configure) -> None:
        store_sweep([])
        finish_run(SWEEP_DIR / "0", 0.5)
        start(configure())

    def test_our_sweeper_refuses_what_is_no_sweep_of_its_own(
        self, configure: Configure, capsys: pytest.CaptureFixture[str]
    ) -> None:
        finish_run(SWEEP_DIR / "0", 0.5)
        with pytest.raises(SystemExit):
            start(configure())
        assert "multirun/s is never overwritten: it holds another sweep" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "sweeper", [["hydra/sweeper=basic"], ["hydra/sweeper=optuna", DIRECTION]]
    )
    def test_other_sweepers_take_no_used_directory(
        self, sweeper: list[str], configure: Configure, capsys: pytest.CaptureFixture[str]
    ) -> None:
        store_sweep([])
        with pytest.raises(SystemExit):
            start(configure(*sweeper))
        assert "is never overwritten" in capsys.readouterr().err

    @pytest.mark.parametrize("sweeper", [[], ["hydra/sweeper=basic"]])
    def test_what_a_failed_start_left_is_no_sweep(
        self, sweeper: list[str], configure: Configure
    ) -> None:
        SWEEP_DIR.mkdir(parents=True)
        for name in (".lock", "sweep.log", "uploader.log"):
            (SWEEP_DIR / name).touch()
        start(configure(*sweeper))


class FakeUploader:
    """Notes what it is asked for; holds what cannot be pickled, as a running one does."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self._calls = calls
        self._lock = threading.Lock()

    def finish(self, wait_seconds: float, on_progress: Callable[[int], None]) -> int:
        self._calls.append(("finish", wait_seconds))
        return 0


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return the list of calls that would start and end an uploader."""
    calls: list[tuple[Any, ...]] = []

    def start_uploader(
        directory: Path, uri: str, experiment: str, wait_seconds: float, on_answer: Any
    ) -> FakeUploader:
        calls.append(("start", directory.name, experiment, wait_seconds))
        return FakeUploader(calls)

    monkeypatch.setattr(process, "start_uploader", start_uploader)
    return calls


class TestUploader:
    TRACKED = ("tracking=mlflow", "tracking.experiment=e", "tracking.wait_seconds=2")

    def test_it_runs_beside_the_sweep(
        self, configure: Configure, uploads: list[tuple[Any, ...]]
    ) -> None:
        config = configure(*self.TRACKED)
        callback = start(config)
        Journal(SWEEP_DIR / "7/seed_0").close()
        callback.on_multirun_end(config=config)
        assert uploads == [("start", "s", "e", 2.0), ("finish", 2.0)]

    def test_the_stored_sweep_says_where_its_record_goes(
        self, configure: Configure, uploads: list[tuple[Any, ...]]
    ) -> None:
        """`study=NAME` is all that one types to go on."""
        store_sweep([*self.TRACKED, "optim.lr=1e-3,1e-2"], [DIRECTION, OURS])
        config = configure("tracking.wait_seconds=1")
        # what the test's own composition adds belongs to the stored command here
        config.hydra.overrides.task = ["study=s", "tracking.wait_seconds=1"]
        callback = start(config)
        Journal(SWEEP_DIR / "0").close()
        callback.on_multirun_end(config=config)
        assert uploads == [("start", "s", "e", 1.0), ("finish", 1.0)]

    def test_a_dry_run_starts_and_writes_nothing(
        self, configure: Configure, uploads: list[tuple[Any, ...]], tmp_path: Path
    ) -> None:
        config = configure(*self.TRACKED, "hydra.sweeper.dry_run=true")
        callback = start(config)
        callback.on_multirun_end(config=config)
        assert uploads == []
        assert list(tmp_path.iterdir()) == []

    def test_workers_get_the_callback_without_it(
        self, configure: Configure, uploads: list[tuple[Any, ...]]
    ) -> None:
        config = configure(*self.TRACKED)
        callback = start(config)
        copy = cloudpickle.loads(cloudpickle.dumps(callback))
        copy.on_multirun_end(config=config)  # it would end the controller's uploader otherwise
        assert uploads == [("start", "s", "e", 2.0)]
        callback.on_multirun_end(config=config)
        assert uploads[1:] == [("finish", 0)]  # no run, so nothing to wait for


class TestDirections:
    OTHERS = "objective.others={num_parameters: minimize}"

    def test_the_list_of_all_objectives_is_accepted(self, configure: Configure) -> None:
        reference = "hydra.sweeper.direction='${visionsweep.directions:${objective.direction},${objective.others}}'"
        start(configure(OURS, self.OTHERS, reference))

    @pytest.mark.parametrize("direction", ["maximize", "[minimize,minimize]", "[maximize]"])
    def test_another_one_is_refused(
        self, direction: str, configure: Configure, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            start(configure(OURS, self.OTHERS, f"hydra.sweeper.direction={direction}"))
        assert (
            "hydra.sweeper.direction: the objective is to maximize, minimize, got m"
            in capsys.readouterr().err
        )


class TestBestRun:
    def test_the_best_finished_trial_and_the_earlier_of_two(self, configure: Configure) -> None:
        for number, value, state in (
            (2, 0.8, "finished"),
            (10, 0.8, "finished"),
            (3, 0.9, "pruned"),
        ):
            finish_run(SWEEP_DIR / str(number), value, state=state)
        assert best_run(SWEEP_DIR) == SWEEP_DIR / "2"

    def test_the_lowest_where_lower_is_better(self, configure: Configure) -> None:
        for number, value in ((0, 0.8), (1, 0.3)):
            finish_run(SWEEP_DIR / str(number), value, "minimize")
        assert best_run(SWEEP_DIR) == SWEEP_DIR / "1"

    def test_the_mean_over_the_seeds_counts(self, configure: Configure) -> None:
        for number, values in ((0, (0.9, 0.1)), (1, (0.6, 0.6))):
            for seed, value in enumerate(values):
                finish_run(SWEEP_DIR / str(number) / f"seed_{seed}", value)
        finish_run(SWEEP_DIR / "2/seed_0", 0.99, state="failed")
        assert best_run(SWEEP_DIR) == SWEEP_DIR / "1/seed_0"

    def test_the_sweeps_own_link_decides(self, configure: Configure) -> None:
        for number, value in ((0, 0.8), (1, 0.3)):
            finish_run(SWEEP_DIR / str(number), value)
        (SWEEP_DIR / "best").symlink_to("1")
        assert best_run(SWEEP_DIR) == SWEEP_DIR / "1"
        finish_run(SWEEP_DIR / "5/seed_0", 0.1)
        for target in ("5", "5/seed_0"):
            (SWEEP_DIR / "best").unlink()
            (SWEEP_DIR / "best").symlink_to(target)
            assert best_run(SWEEP_DIR) == SWEEP_DIR / "5/seed_0"

    def test_there_may_be_none(self, configure: Configure) -> None:
        finish_run(SWEEP_DIR / "0", 0.5, state="failed")
        assert best_run(SWEEP_DIR) is None


class TestExport:
    def test_once_however_often_the_sweep_is_taken_up(self, configure: Configure) -> None:
        config = configure()
        callback = start(config)
        store_sweep([])
        finish_run(SWEEP_DIR / "0", 0.5)
        callback.on_multirun_end(config=config)
        assert exported(SWEEP_DIR / "0") == [3]
        start(config).on_multirun_end(config=config)
        assert exported(SWEEP_DIR / "0") == [3]

    def test_not_of_a_sweep_that_was_interrupted(self, configure: Configure) -> None:
        """Its best may still change; Hydra ends the sweep in a `finally`."""
        config = configure()
        callback = start(config)
        finish_run(SWEEP_DIR / "0", 0.5)
        try:
            raise SystemExit(130)
        except SystemExit:
            callback.on_multirun_end(config=config)
        assert exported(SWEEP_DIR / "0") == []

    def test_not_of_weights_that_are_gone(self, configure: Configure) -> None:
        config = configure()
        callback = start(config)
        finish_run(SWEEP_DIR / "0", 0.5)
        (SWEEP_DIR / "0/checkpoints/best.pt").unlink()
        callback.on_multirun_end(config=config)
        assert exported(SWEEP_DIR / "0") == []
