"""A run as a trial of a sweep: its reports, its end, and how it resumes."""

import contextlib
import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

import visionsweep.run.train as run_module
from tests.conftest import Compose, one_fast
from tests.images import make_image
from tests.run.test_folds import write_folds
from tests.run.test_resume import TIMES, Killed, assert_same_bytes, kill_in
from visionsweep.cli.arguments import prepare_arguments
from visionsweep.cli.evaluate import main as evaluate_command
from visionsweep.cli.train import run_experiment
from visionsweep.data import memo
from visionsweep.errors import ConfigError
from visionsweep.run import Stopped, check, run
from visionsweep.run import recorder as recording
from visionsweep.run.context import RunContext
from visionsweep.rundir import lock
from visionsweep.rundir.journal import Journal, read_journal
from visionsweep.rundir.layout import BEST, LAST, PREDICTIONS
from visionsweep.rundir.lock import locked
from visionsweep.rundir.predictions import read_predictions
from visionsweep.rundir.result import Objective
from visionsweep.sweep.trial import (
    NoTrial,
    TrialPruned,
    TrialStopped,
    set_current_trial,
)
from visionsweep.training.loop import EpochResult

# 539 training images, 5 updates per epoch; dropout and mixup draw from the generators.
SMALL = ["split.val_fraction=0.7", "trainer.batch_size=128", "trainer.epochs=3"]
SMALL += ["model.drop_rate=0.3", "augment=mixup", "trainer.ema=0.99"]


class FakeTrial:
    """The trial of a worker, with fixed answers of the controller."""

    attempt = 0
    params: Mapping[str, Any] = {}

    def __init__(
        self,
        number: int | None = 7,
        *,
        prune_at: int | None = None,
        stop_at: int | None = None,
        threads: int = 1,
    ) -> None:
        """``prune_at``: the step to prune; ``stop_at``: the look after which to stop.

        A run looks after each update, and after each epoch.
        """
        self.number = number
        self.threads: int | None = threads
        self.reports: list[tuple[int, Any]] = []
        self.on_report: Callable[[int], None] = lambda step: None
        self._prune_at = prune_at
        self._stop_at = stop_at
        self._looks = 0

    def report(self, value: Any, step: int) -> bool:
        self.reports.append((step, value))
        self.on_report(step)
        return step == self._prune_at

    def should_stop(self) -> bool:
        self._looks += 1
        return self._stop_at is not None and self._looks >= self._stop_at


JobRunner = Callable[..., Objective]


@pytest.fixture
def job(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    """Return a function that runs a job of the sweep `s` as a worker does."""

    def run_job(
        trial: FakeTrial,
        *overrides: str,
        directory: str = "7",
        function: Callable[[DictConfig], Any] = run,
    ) -> Any:
        cfg = compose("study=s", *overrides, return_hydra_config=True)
        run_dir = tmp_path / "multirun/s" / directory
        run_dir.mkdir(parents=True, exist_ok=True)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.mode = RunMode.MULTIRUN
            cfg.hydra.runtime.output_dir = str(run_dir)
        HydraConfig.instance().set_config(cfg)
        set_current_trial(trial)
        try:
            return function(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
        finally:
            set_current_trial(NoTrial())
            HydraConfig.instance().cfg = None

    yield run_job
    memo.forget_datasets()


def result_in(run_dir: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return contents


def last_state(run_dir: Path) -> str:
    record = read_journal(run_dir)[-1]
    assert record["type"] == "end"
    return str(record["state"])


def points(run_dir: Path) -> list[tuple[int, str, float]]:
    return [
        (record["step"], key, value)
        for record in read_journal(run_dir)
        if record["type"] == "metrics"
        for key, value in record["values"].items()
        if not key.endswith(TIMES)
    ]


def rig(monkeypatch: pytest.MonkeyPatch, objectives: list[float]) -> None:
    """Replace the objectives of the epochs."""
    original = recording.Recorder.__call__

    def rigged(self: recording.Recorder, result: EpochResult) -> bool:
        return original(self, replace(result, objective=objectives[result.epoch - 1]))

    monkeypatch.setattr(recording.Recorder, "__call__", rigged)


def keep_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy `last.pt` after training, before it is removed."""
    original = run_module.finish

    def finish(context: RunContext, *arguments: Any) -> Any:
        folder = context.run_dir / "checkpoints"
        shutil.copy(folder / "last.pt", folder / "kept.pt")
        return original(context, *arguments)

    monkeypatch.setattr(run_module, "finish", finish)


RUN_DIR = Path("multirun/s/7")


class TestReports:
    @pytest.mark.parametrize(
        ("objective", "best"),
        [
            (["objective.metric=val/f1_macro"], [0.4, 0.4, 0.9]),
            (["objective.metric=val/loss", "objective.direction=minimize"], [0.4, 0.2, 0.2]),
        ],
    )
    def test_each_epoch_reports_the_best_so_far_and_the_run_returns_it(
        self,
        objective: list[str],
        best: list[float],
        job: JobRunner,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        rig(monkeypatch, [0.4, 0.2, 0.9])
        trial = FakeTrial()
        assert job(trial, *SMALL, *objective) == best[-1]
        assert trial.reports == list(enumerate(best, start=1))

    def test_with_several_objectives_it_reports_what_it_would_return(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig(monkeypatch, [0.4, 0.2, 0.9])
        trial = FakeTrial()
        others = "objective.others={val/loss: minimize, num_parameters: minimize}"
        result = job(trial, *SMALL, others)
        records = [r for r in read_journal(RUN_DIR) if "train/loss" in r.get("values", ())]
        loss = [record["values"]["val/loss"] for record in records]
        size = result[2]
        assert size > 1000
        assert [values for _, values in trial.reports] == [
            (0.4, loss[0], size),
            (0.4, loss[0], size),
            (0.9, loss[2], size),
        ]
        assert result == trial.reports[-1][1]

    def test_an_epoch_is_reported_after_it_is_on_disk(self, job: JobRunner) -> None:
        seen: list[tuple[int, int, int]] = []

        def look(step: int) -> None:
            history = torch.load(RUN_DIR / "checkpoints/last.pt", weights_only=True)["history"]
            steps = [
                record["step"] for record in read_journal(RUN_DIR) if record["type"] == "metrics"
            ]
            seen.append((step, len(history), steps[-1]))
            assert (RUN_DIR / "checkpoints/best.pt").exists()

        trial = FakeTrial()
        trial.on_report = look
        job(trial, *SMALL)
        assert seen == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


class TestPruned:
    def test_a_losing_trial_ends_as_pruned_and_keeps_its_record(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig(monkeypatch, [0.5, 0.3, 0.9])
        with pytest.raises(TrialPruned, match=r"after epoch 2: val/f1_macro 0\.5"):
            job(FakeTrial(prune_at=2), *SMALL)
        result = result_in(RUN_DIR)
        assert (result["state"], result["epochs"], result["best_epoch"]) == ("pruned", 2, 1)
        assert result["objective"] == {
            "metric": "val/f1_macro",
            "direction": "maximize",
            "value": 0.5,
        }
        assert last_state(RUN_DIR) == "pruned"
        assert "result.json" in [
            r["path"] for r in read_journal(RUN_DIR) if r["type"] == "artifact"
        ]
        assert (RUN_DIR / "checkpoints/best.pt").exists()
        assert not (RUN_DIR / "checkpoints/last.pt").exists()
        assert not (RUN_DIR / PREDICTIONS).exists()

    def test_a_pruned_trial_is_pruned_again_at_once(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker died before the end of the journal, the controller before it heard of it."""
        with monkeypatch.context() as patch:
            kill_in(patch, Journal, "end", after=False, call=1)
            with pytest.raises(Killed):
                job(FakeTrial(prune_at=1), *SMALL)
        assert (RUN_DIR / "checkpoints/last.pt").exists()
        trial = FakeTrial()
        monkeypatch.setattr(run_module, "assemble", lambda *_, **__: pytest.fail("it trains again"))
        for _ in range(2):
            with pytest.raises(TrialPruned):
                job(trial, *SMALL)
        assert trial.reports == []
        assert [r["state"] for r in read_journal(RUN_DIR) if r["type"] == "end"] == ["pruned"]
        assert not (RUN_DIR / "checkpoints/last.pt").exists()

    def test_a_pruned_trial_cannot_be_resumed_by_hand(
        self, job: JobRunner, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(TrialPruned):
            job(FakeTrial(prune_at=1), *SMALL)
        with pytest.raises(SystemExit) as end:
            prepare_arguments([f"resume={RUN_DIR}"])
        assert end.value.code == 0
        assert "was pruned by its sweep: nothing to resume" in capsys.readouterr().out
        with pytest.raises(SystemExit) as end:
            prepare_arguments([f"resume={RUN_DIR}", "trainer.epochs=9"])
        assert end.value.code == 1
        assert "trainer.epochs=9 would have no effect" in capsys.readouterr().err


class TestStopped:
    def test_a_stop_of_the_sweep_saves_the_last_update_and_leaves_signals_alone(
        self, job: JobRunner
    ) -> None:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

        def look(step: int) -> None:
            assert [
                signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
            ] == handlers

        trial = FakeTrial(stop_at=8)
        trial.on_report = look
        with pytest.raises(TrialStopped, match="stopped"):
            job(trial, *SMALL)
        assert trial.reports[0][0] == 1
        state = torch.load(RUN_DIR / "checkpoints/last.pt", weights_only=True)["state"]
        assert (state["epoch"], state["step"]) == (1, 7)
        assert result_in(RUN_DIR)["state"] == last_state(RUN_DIR) == "stopped"

    @pytest.mark.slow  # test_resume.py stops a single run
    def test_a_stop_within_an_epoch_resumes_bit_for_bit(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep_last(monkeypatch)
        job(FakeTrial(), *SMALL, directory="0")
        with pytest.raises(Stopped):
            job(FakeTrial(stop_at=7), *SMALL)
        job(FakeTrial(), *SMALL)
        for name in ("kept.pt", "best.pt"):
            assert_same_bytes(Path("multirun/s/0"), RUN_DIR, name)
        assert result_in(RUN_DIR)["state"] == last_state(RUN_DIR) == "finished"

    def test_a_paused_trial_ends_at_its_epoch_and_resumes_bit_for_bit(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep_last(monkeypatch)
        job(FakeTrial(), *SMALL, directory="0")
        with pytest.raises(TrialStopped):
            job(FakeTrial(stop_at=6), *SMALL)  # after 5 updates, and the report of the epoch
        state = torch.load(RUN_DIR / "checkpoints/last.pt", weights_only=True)["state"]
        assert (state["epoch"], state["step"]) == (1, 5)
        assert result_in(RUN_DIR)["state"] == last_state(RUN_DIR) == "stopped"
        trial = FakeTrial()
        job(trial, *SMALL)
        assert [step for step, _ in trial.reports] == [1, 2, 3]  # it says again where it was
        for name in ("kept.pt", "best.pt"):
            assert_same_bytes(Path("multirun/s/0"), RUN_DIR, name)

    def test_paused_trials_go_on_from_memory_unless_their_checkpoint_is_another(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two trials take turns in one worker, as when a sweep thaws them."""
        keep_last(monkeypatch)
        kinds = {"8": [*SMALL], "9": [*SMALL, "optim=sgd", "seed=3", "trainer.ema=null"]}
        for directory, overrides in kinds.items():
            job(FakeTrial(), *overrides, directory=f"1{directory}")
        assembled: list[str] = []
        assemble = run_module.assemble

        def counting(config: Any, **settings: Any) -> Any:
            assembled.append(config.optim["_target_"])
            return assemble(config, **settings)

        monkeypatch.setattr(run_module, "assemble", counting)
        for epoch in (1, 2, 3):
            for directory, overrides in kinds.items():
                if epoch == 3 and directory == "9":
                    last = Path("multirun/s/9/checkpoints/last.pt")
                    shutil.copy(last, "copy")
                    shutil.move("copy", last)
                # After 5 updates, and the reports of the epochs; a resumed run repeats one.
                trial = FakeTrial(stop_at=6 if epoch == 1 else 7)
                with contextlib.suppress(TrialStopped):
                    job(trial, *overrides, directory=directory)
                assert trial.reports[-1][0] == epoch
        assert [target.rpartition(".")[2] for target in assembled] == ["AdamW", "SGD", "SGD"]
        for directory in kinds:
            for name in ("kept.pt", "best.pt"):
                assert_same_bytes(
                    Path(f"multirun/s/1{directory}"), Path(f"multirun/s/{directory}"), name
                )

    def test_a_worker_gets_the_exception_and_no_exit(self, job: JobRunner) -> None:
        with pytest.raises(Stopped):
            job(FakeTrial(stop_at=1), *SMALL, function=run_experiment)
        with pytest.raises(ConfigError):
            job(FakeTrial(), "trainer.epochs=0", function=run_experiment, directory="8")


MOMENTS = {
    "before the first checkpoint": (recording.Recorder, "_save_best", False, 1),
    "between last and journal": (recording.Recorder, "_write_metrics", False, 2),
    "before the report": (FakeTrial, "report", False, 2),
    "while it waits for the answer": (FakeTrial, "report", True, 2),
    "after the last epoch": (FakeTrial, "report", True, 3),
}


class TestResumed:
    @pytest.mark.parametrize("moment", one_fast(MOMENTS, "before the report"))
    def test_a_trial_that_died_ends_like_the_one_that_did_not(
        self, job: JobRunner, moment: tuple[Any, str, bool, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep_last(monkeypatch)
        whole, first, second = FakeTrial(), FakeTrial(), FakeTrial()
        expected = job(whole, *SMALL, directory="0")
        target, method, after, call = moment
        with monkeypatch.context() as patch:
            kill_in(patch, target, method, after=after, call=call)
            with pytest.raises(Killed):
                job(first, *SMALL)
        # The time of the first start, which the second one keeps.
        name = OmegaConf.load(RUN_DIR / "config.yaml").name
        assert job(second, *SMALL) == expected
        assert OmegaConf.load(RUN_DIR / "config.yaml").name == name
        for file in ("kept.pt", "best.pt"):
            assert_same_bytes(Path("multirun/s/0"), RUN_DIR, file)
        assert points(RUN_DIR) == points(Path("multirun/s/0"))
        # Nothing is missing; only the report under way may come again.
        assert dict(first.reports + second.reports) == dict(whole.reports)
        steps = [step for step, _ in second.reports]
        assert steps == list(range(steps[0], 4))
        (name,) = [r["name"] for r in read_journal(RUN_DIR) if r["type"] == "start"]
        assert name.startswith("cross_entropy adamw lr=0.003")

    def test_an_unanswered_report_is_repeated(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            kill_in(patch, FakeTrial, "report", after=False, call=2)
            with pytest.raises(Killed):
                job(FakeTrial(), *SMALL)
        trial = FakeTrial(prune_at=2)
        with pytest.raises(TrialPruned):
            job(trial, *SMALL)
        assert [step for step, _ in trial.reports] == [2]
        assert result_in(RUN_DIR)["epochs"] == 2

    def test_a_finished_trial_gives_its_result_at_once(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = "objective.others={num_parameters: minimize, val/loss: minimize}"
        with monkeypatch.context() as patch:
            kill_in(patch, Journal, "end", after=False, call=1)  # the result is written
            with pytest.raises(Killed):
                job(FakeTrial(), *SMALL, others)
        result = result_in(RUN_DIR)
        expected = (result["objective"]["value"], *result["others"].values())
        monkeypatch.setattr(run_module, "assemble", lambda *_, **__: pytest.fail("it trains again"))
        for _ in range(2):
            assert job(FakeTrial(), *SMALL, others) == expected
        assert [r["state"] for r in read_journal(RUN_DIR) if r["type"] == "end"] == ["finished"]
        assert not (RUN_DIR / "checkpoints/last.pt").exists()

    def test_a_start_that_died_before_the_run_began_starts_again(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from visionsweep.run import start

        with monkeypatch.context() as patch:
            kill_in(patch, start, "environment", after=False, call=1)  # config.yaml is there
            with pytest.raises(Killed):
                job(FakeTrial(), *SMALL)
        assert (RUN_DIR / "config.yaml").exists()
        job(FakeTrial(), *SMALL)
        assert json.loads((RUN_DIR / "environment.json").read_text())["resumed"] == []
        assert result_in(RUN_DIR)["state"] == "finished"

    def test_another_config_is_refused(self, job: JobRunner) -> None:
        with pytest.raises(Stopped):
            job(FakeTrial(stop_at=1), *SMALL)
        with pytest.raises(ConfigError, match=r"trainer\.accumulate: 1 -> 2"):
            job(FakeTrial(), *SMALL, "trainer.accumulate=2")
        job(FakeTrial(), *SMALL, "tracking.wait_seconds=3")  # may differ

    def test_a_failed_trial_starts_over_and_repeats_no_record(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job(FakeTrial(), *SMALL, directory="0")
        trial = FakeTrial()
        trial.on_report = lambda step: fail_at(2, step, ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            job(trial, *SMALL)
        assert result_in(RUN_DIR)["state"] == last_state(RUN_DIR) == "failed"
        assert not (RUN_DIR / "checkpoints/last.pt").exists()
        job(FakeTrial(), *SMALL)
        assert points(RUN_DIR) == points(Path("multirun/s/0"))
        assert_same_bytes(Path("multirun/s/0"), RUN_DIR, "best.pt")

    def test_a_trial_that_ran_out_of_memory_resumes_from_its_checkpoint(
        self, job: JobRunner
    ) -> None:
        error = RuntimeError("[enforce] can't allocate memory")
        trial = FakeTrial()
        trial.on_report = lambda step: fail_at(2, step, error)
        with pytest.raises(type(error)):
            job(trial, *SMALL)
        again = FakeTrial()
        job(again, *SMALL)
        assert [step for step, _ in again.reports] == [2, 3]
        assert not (RUN_DIR / "checkpoints/last.pt").exists()

    def test_a_trial_waits_for_a_worker_that_is_about_to_end(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        RUN_DIR.mkdir(parents=True)
        other = locked(RUN_DIR)
        other.__enter__()
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            other.__exit__(None, None, None)

        monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
        job(FakeTrial(), *SMALL)
        assert len(waits) == 1


def fail_at(wanted: int, step: int, error: Exception) -> None:
    if step == wanted:
        raise error


def test_a_seed_of_a_trial_has_a_name_of_its_own_and_no_model(job: JobRunner) -> None:
    job(FakeTrial(), *SMALL, "tracking.checkpoints=all", directory="7/seed_0")
    records = read_journal(Path("multirun/s/7/seed_0"))
    assert records[0]["name"].startswith("cross_entropy adamw lr=0.003")
    assert records[0]["name"].endswith(" #007 seed 0")
    # The sweep exports only its best model, and a trial loses its last checkpoint.
    assert "model" not in {record["type"] for record in records}
    sent = [r["path"] for r in records if r["type"] == "artifact" and r["folder"] == "checkpoints"]
    assert sent == [BEST]
    assert not (Path("multirun/s/7/seed_0") / LAST).exists()


def test_torch_uses_the_workers_share_of_threads(job: JobRunner) -> None:
    seen: list[int] = []
    trial = FakeTrial(threads=1)
    trial.on_report = lambda step: seen.append(torch.get_num_threads())
    torch.set_num_threads(2)
    try:
        job(trial, *SMALL, "trainer.threads=null", "trainer.epochs=1")
    finally:
        torch.set_num_threads(1)
    assert seen == [1]
    assert json.loads((RUN_DIR / "environment.json").read_text())["threads"] == 1


class TestSearched:
    def test_a_trial_is_named_by_what_the_sweep_searched(self, job: JobRunner) -> None:
        trial = FakeTrial()
        trial.params = {"trainer.batch_size": 128, "model.drop_rate": 0.3}
        job(trial, *SMALL, "trainer.epochs=1")
        (start,) = [r for r in read_journal(RUN_DIR) if r["type"] == "start"]
        assert start["name"] == "cross_entropy adamw lr=0.003 batch_size=128 drop_rate=0.3 #007"

    def test_a_trial_that_is_resumed_alone_keeps_its_name(self, job: JobRunner) -> None:
        trial = FakeTrial(stop_at=2)
        trial.params = {"trainer.batch_size": 128}
        with pytest.raises(Stopped):
            job(trial, *SMALL, "trainer.epochs=1")
        job(FakeTrial(None), *SMALL, "trainer.epochs=1", f"resume={RUN_DIR}")
        names = [r["tags"].get("mlflow.runName") for r in read_journal(RUN_DIR) if "tags" in r]
        score = result_in(RUN_DIR)["objective"]["value"]
        assert names[-1] == f"{score:.3f} cross_entropy adamw lr=0.003 batch_size=128 #007"


class TestCheck:
    def test_it_writes_nothing(self, job: JobRunner, tmp_path: Path) -> None:
        size = job(FakeTrial(), *SMALL, function=check)["checkpoint_bytes"]
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        job(FakeTrial(), *SMALL)
        assert 0 < size <= (RUN_DIR / BEST).stat().st_size < 2 * size

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("+loss.gama=3", r"loss\.gama: CrossEntropyLoss takes"),
            ("trainer.batch_size=5000", r"trainer\.batch_size: 5000 is more than"),
            ("optim.lr=${nope}", r"optim\.lr: Interpolation key 'nope' not found"),
        ],
    )
    def test_it_raises_what_the_run_would(
        self, job: JobRunner, override: str, message: str
    ) -> None:
        for function in (check, run):
            with pytest.raises(ConfigError, match=message):
                job(FakeTrial(), override, function=function)


class TestDatasetMemo:
    @pytest.fixture(autouse=True)
    def empty(self) -> Iterator[None]:
        memo.forget_datasets()
        yield
        memo.forget_datasets()

    def count_loads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        from visionsweep.data import digits

        loads: list[str] = []
        original = digits._read_table

        def read() -> Any:
            loads.append("digits")
            torch.rand(3)  # a loader may draw from the global generator
            return original()

        monkeypatch.setattr(digits, "_read_table", read)
        return loads

    def test_a_worker_loads_once_and_gets_the_same_bytes(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loads = self.count_loads(monkeypatch)
        job(FakeTrial(), *SMALL, directory="0")
        dataset = next(iter(memo._datasets.values()))
        before = digest(dataset.train)
        job(FakeTrial(), *SMALL, directory="1")
        job(FakeTrial(), *SMALL, function=check)
        assert len(loads) == 1
        assert digest(dataset.train) == before
        assert_same_bytes(Path("multirun/s/0"), Path("multirun/s/1"), "best.pt")
        assert points(Path("multirun/s/0")) == points(Path("multirun/s/1"))

    def test_outside_of_a_worker_nothing_is_kept(
        self, compose: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a notebook files may change between two runs."""
        loads = self.count_loads(monkeypatch)
        run(compose(*SMALL, "name=a", "trainer.epochs=1"))
        run(compose(*SMALL, "name=b", "trainer.epochs=1"))
        assert len(loads) == 2


def digest(images: Any) -> str:
    return hashlib.sha256(
        images.images.numpy().tobytes() + images.targets.numpy().tobytes()
    ).hexdigest()


class TestOtherObjectives:
    def test_they_come_from_the_best_epoch_in_their_order(
        self, job: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig(monkeypatch, [0.3, 0.8, 0.5])
        value = job(
            FakeTrial(), *SMALL, "objective.others={val/loss: minimize, num_parameters: minimize}"
        )
        losses = [v for _, key, v in points(RUN_DIR) if key == "val/loss"]
        state = torch.load(RUN_DIR / "checkpoints/best.pt", weights_only=True)["model"]
        weights = sum(
            v.numel() for key, v in state.items() if not key.endswith(("mean", "var", "tracked"))
        )
        assert value == (0.8, losses[1], weights)
        result = result_in(RUN_DIR)
        assert list(result["others"].items()) == [
            ("val/loss", losses[1]),
            ("num_parameters", weights),
        ]
        assert result["objective"] == {
            "metric": "val/f1_macro",
            "direction": "maximize",
            "value": 0.8,
        }

    @pytest.mark.parametrize(
        ("others", "message"),
        [
            (
                "{val/f1: maximize}",
                r"objective\.others\.val/f1: no metric 'val/f1'; choose one of .* num_parameters$",
            ),
            (
                "{test/loss: minimize}",
                r"objective\.others\.test/loss: .*the test split is never an objective",
            ),
            (
                "{val/loss: maximize}",
                r"objective\.others\.val/loss: expected minimize for val/loss, got maximize",
            ),
            (
                "{val/f1_macro: maximize}",
                r"objective\.others\.val/f1_macro: is the objective\.metric already",
            ),
            (
                "{num_parameters: small}",
                r"num_parameters: expected maximize or minimize, got small",
            ),
        ],
    )
    def test_a_mistake_names_the_key(self, compose: Compose, others: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            check(compose(f"objective.others={others}"))


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Return the overrides of a small data set with a test split."""
    for part, count in (("train", 8), ("test", 3)):
        for index, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                make_image(index, number + 20 * (part == "test")).save(folder / f"{number}.png")
    data = [f"data.root={tmp_path / 'photos'}", "data.image_size=8", "data.cache_dir=none"]
    return ["data=image_folder", *data, "trainer.batch_size=4", "trainer.epochs=1", "tracking=none"]


def test_the_test_split_waits_for_the_winner(
    job: JobRunner, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(FakeTrial(), *photos)
    run_dir = tmp_path / "multirun/s/7"
    before = result_in(run_dir)
    assert before["test"] is None
    assert not any(name.startswith("test/") for _, name, _ in points(run_dir))
    assert read_predictions(run_dir).test is None

    (tmp_path / "multirun/s/best").symlink_to("7")
    argument = f"run={tmp_path / 'multirun/s/best'}"
    assert evaluate_command([argument]) == 0
    predictions = read_predictions(run_dir).test
    assert predictions is not None
    accuracy = (predictions.logits.argmax(axis=1) == predictions.targets).mean()
    result = result_in(run_dir)
    assert result["test"]["test/accuracy"] == pytest.approx(accuracy)
    assert {**result, "test": None} == before
    assert (1, "test/accuracy", result["test"]["test/accuracy"]) in points(run_dir)
    assert last_state(run_dir) == "finished"

    records = len(read_journal(run_dir))
    assert evaluate_command([argument]) == 0  # nothing more to do
    assert len(read_journal(run_dir)) == records


@pytest.mark.parametrize("link", ["7/fold_0", None])
def test_all_folds_of_the_winner_are_evaluated_and_their_mean_prediction(
    job: JobRunner,
    photos: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    link: str | None,
) -> None:
    for fold in range(2):
        folds = [f"split.fold={fold}", "split.num_folds=2"]
        job(FakeTrial(), *photos, *folds, directory=f"7/fold_{fold}")
    directory = tmp_path / "multirun/s/7"
    if link is not None:
        directory = tmp_path / "multirun/s/best"
        directory.symlink_to(link)
    caplog.set_level("INFO")
    assert evaluate_command([f"run={directory}"]) == 0
    tests = [read_predictions(tmp_path / f"multirun/s/7/fold_{i}").test for i in range(2)]
    probs = [test.probabilities() for test in tests if test is not None]
    assert len(probs) == 2
    assert tests[0] is not None
    accuracy = (np.mean(probs, axis=0).argmax(axis=1) == tests[0].targets).mean()
    line = caplog.records[-1].getMessage()
    assert line.startswith("multirun/s/7 (mean prediction of 2 runs): ")
    assert f"test/accuracy {accuracy:.4f}" in line


def test_what_cannot_be_evaluated_is_one_line(
    job: JobRunner, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "multirun/s/7"
    job(FakeTrial(), *photos)
    (tmp_path / "photos/test/cat/0.png").unlink()

    def error(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            evaluate_command(list(arguments))
        return capsys.readouterr().err.strip().replace(str(tmp_path), "")

    assert "the data has changed since the run started" in error(f"run={run_dir}")
    (run_dir / "checkpoints/best.pt").unlink()
    assert "has no checkpoints/best.pt; a sweep keeps" in error(f"run={run_dir}")
    assert "is a sweep; expected one of its runs" in error(f"run={run_dir.parent}")
    assert "does not exist" in error("run=nowhere")
    assert error("rum=x") == (
        "error: rum=x: expected visionsweep evaluate run=DIR, e.g. run=multirun/STUDY/best; "
        "did you mean run?"
    )
    (run_dir / "result.json").write_text('{"state": "failed", "test": null}')
    assert "expected a finished run, this one: failed" in error(f"run={run_dir}")


def test_folds_of_a_sweep_must_be_those_that_the_data_brings(
    job: JobRunner, tmp_path: Path
) -> None:
    """Found before trial 0, by `hydra.sweeper.check`."""
    table = write_folds(tmp_path, [0, 1, 2])
    data = ("data=csv", f"data.path={table}", "data.split_column=part", "data.label=class")
    settings = (*data, "data.image_size=8", "sweep=default", "trainer.batch_size=8")
    line = r"^hydra\.sweeper\.folds: the data has 3 folds of its own \(0, 1, 2\), not 5; set hydra"
    with pytest.raises(ConfigError, match=line):
        job(FakeTrial(), *settings, "hydra.sweeper.folds=5", function=check)
    of_first = ("split.fold=0", "split.num_folds=3")  # as the controller composes it
    job(FakeTrial(), *settings, *of_first, "hydra.sweeper.folds=3", function=check)
