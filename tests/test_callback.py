"""Hydra's hooks: which directory may be used, when the uploader runs, when a model is requested."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from omegaconf import DictConfig

from tests.conftest import Compose
from visionsweep import callback as module
from visionsweep.callback import RunCallback
from visionsweep.config.schema import TrackingConfig
from visionsweep.sweep.stored import Stored

SWEEP_DIR = Path("multirun/s")
OURS = "hydra/sweeper=optuna_async"
DIRECTION = "hydra.sweeper.direction=maximize"

Configure = Callable[..., DictConfig]
Calls = list[tuple[Any, ...]]


@pytest.fixture
def configure(compose: Compose) -> Configure:
    """Return a function that composes what Hydra gives to a callback; by default our sweeper's."""

    def config(*overrides: str) -> DictConfig:
        is_chosen = any(override.startswith("hydra/sweeper=") for override in overrides)
        sweeper = [] if is_chosen else [OURS, DIRECTION]
        return compose("study=s", *sweeper, *overrides, return_hydra_config=True)

    return config


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Return what the callback asks of tracking; nothing of it happens."""
    calls: Calls = []

    class FakeUpload:
        def __init__(self, directory: Path, tracking: TrackingConfig) -> None:
            calls.append(("start", directory.name, tracking.experiment, tracking.wait_seconds))

        def finish(self, *, is_refused: bool = False) -> None:
            calls.append(("finish", is_refused))

        def __reduce__(self) -> str:
            raise TypeError("holds a process")

    def request(directory: Path, register: str | None) -> bool:
        calls.append(("model", directory.name, register))
        return True

    monkeypatch.setattr(module, "Upload", FakeUpload)
    monkeypatch.setattr(module, "request_best_model", request)
    return calls


def start(config: DictConfig) -> RunCallback:
    callback = RunCallback()
    callback.on_multirun_start(config=config)
    return callback


def store_sweep(task: list[str], hydra: list[str]) -> None:
    SWEEP_DIR.mkdir(parents=True)
    Stored(
        id="x",
        study_name="s",
        task_overrides=task,
        hydra_overrides=hydra,
        search={},
        config={},
        seed=0,
        git_commit=None,
    ).write(SWEEP_DIR)


class TestUsedDirectory:
    def test_our_sweeper_resumes_a_stored_sweep(self, configure: Configure) -> None:
        store_sweep([], [])
        (SWEEP_DIR / "0").mkdir()
        start(configure())

    @pytest.mark.parametrize(
        ("sweeper", "is_stored"),
        [([], False), (["hydra/sweeper=basic"], True), (["hydra/sweeper=optuna", DIRECTION], True)],
    )
    def test_any_other_used_directory_is_refused(
        self,
        sweeper: list[str],
        is_stored: bool,
        configure: Configure,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        if is_stored:
            store_sweep([], [])
        (SWEEP_DIR / "0").mkdir(parents=True)
        with pytest.raises(SystemExit):
            start(configure(*sweeper))
        assert "multirun/s is never overwritten: it holds " in capsys.readouterr().err

    @pytest.mark.parametrize("sweeper", [[], ["hydra/sweeper=basic"]])
    def test_what_a_failed_start_left_may_be_overwritten(
        self, sweeper: list[str], configure: Configure
    ) -> None:
        SWEEP_DIR.mkdir(parents=True)
        for name in (".lock", "sweep.log", "uploader.log"):
            (SWEEP_DIR / name).touch()
        start(configure(*sweeper))


class TestUpload:
    TRACKED = ("tracking=mlflow", "tracking.experiment=e", "tracking.wait_seconds=2")

    def test_it_runs_beside_the_sweep(self, configure: Configure, calls: Calls) -> None:
        config = configure(*self.TRACKED)
        callback = start(config)
        # A worker's copy must not end the controller's uploader.
        cloudpickle.loads(cloudpickle.dumps(callback)).on_multirun_end(config=config)
        callback.on_multirun_end(config=config)
        assert calls == [("start", "s", "e", 2.0), ("model", "s", None), ("finish", False)]

    def test_a_resumed_sweep_is_tracked_as_before(self, configure: Configure, calls: Calls) -> None:
        """`study=NAME` is all that one types to resume."""
        store_sweep([*self.TRACKED, "optim.lr=1e-3,1e-2"], [DIRECTION, OURS])
        config = configure("tracking.wait_seconds=1")
        # The test's own overrides belong to the stored command here.
        config.hydra.overrides.task = ["study=s", "tracking.wait_seconds=1"]
        start(config)
        assert calls == [("start", "s", "e", 1.0)]

    def test_a_dry_run_starts_and_writes_nothing(
        self, configure: Configure, calls: Calls, tmp_path: Path
    ) -> None:
        config = configure(*self.TRACKED, "hydra.sweeper.dry_run=true")
        start(config).on_multirun_end(config=config)
        assert calls == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("exit_code", "is_refused"), [(130, False), (1, True)])
    def test_an_unfinished_sweep_requests_no_model(
        self, exit_code: int, is_refused: bool, configure: Configure, calls: Calls
    ) -> None:
        """Its best may still change; Hydra ends a sweep in a `finally`."""
        config = configure(*self.TRACKED)
        callback = start(config)
        try:
            raise SystemExit(exit_code)
        except SystemExit:
            callback.on_multirun_end(config=config)
        assert calls[1:] == [("finish", is_refused)]


class TestDirections:
    OTHERS = "objective.others={num_parameters: minimize}"

    def test_the_list_of_all_objectives_is_accepted(self, configure: Configure) -> None:
        resolver = "${visionsweep.directions:${objective.direction},${objective.others}}"
        start(configure(OURS, self.OTHERS, f"hydra.sweeper.direction='{resolver}'"))

    @pytest.mark.parametrize("direction", ["maximize", "[minimize,minimize]", "[maximize]"])
    def test_any_other_list_is_refused(
        self, direction: str, configure: Configure, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            start(configure(OURS, self.OTHERS, f"hydra.sweeper.direction={direction}"))
        expected = "hydra.sweeper.direction: expected maximize, minimize as in `objective`, got m"
        assert expected in capsys.readouterr().err
