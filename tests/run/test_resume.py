"""A run that is killed and resumed ends with the bytes of a run that is not."""

import contextlib
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import visionsweep.run.finish as finish_module
import visionsweep.run.train as run_module
from tests.conftest import ROOT, Compose, one_fast
from visionsweep.errors import UserError
from visionsweep.run import recorder as recording
from visionsweep.run import run
from visionsweep.rundir.journal import Journal, read_journal
from visionsweep.training import checkpoint
from visionsweep.training.loop import EpochResult

EPOCHS = 3
# 539 training images, 9 batches.
SMALL = ["split.val_fraction=0.7", "trainer.batch_size=64"]
# Dropout and mixup draw from generators; EMA and early stopping have counters.
EVERYTHING = [
    *SMALL,
    "model.drop_rate=0.3",
    "augment=mixup",
    "trainer.ema=0.99",
    "trainer.early_stopping.patience=9",
]
OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf/optim").glob("*.yaml"))
SCHEDULERS = sorted(path.stem for path in (ROOT / "conf/scheduler").glob("*.yaml"))


class Killed(BaseException):
    """SIGKILL in process: no handler sees it, only what is on disk remains."""


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Return every tensor and plain value of a checkpoint by its path."""
    if isinstance(value, dict):
        return {
            k: v for name, item in value.items() for k, v in leaves(item, f"{key}/{name}").items()
        }
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in leaves(item, f"{key}/{i}").items()}
    return {key: value}


# An interrupted epoch is timed over its last images; everything else must agree.
TIMES = ("seconds", "time_ms", "images_per_second", "num_images")


def assert_same_bytes(first: Path, second: Path, name: str) -> None:
    ours, theirs = (
        leaves(checkpoint.load(run_dir / "checkpoints" / name)) for run_dir in (first, second)
    )
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if key.endswith(TIMES):
            continue
        if isinstance(value, torch.Tensor):
            assert value.dtype == theirs[key].dtype, key
            assert value.numpy().tobytes() == theirs[key].numpy().tobytes(), key
        else:
            assert value == theirs[key], key


def kill_in(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, *, after: bool, call: int
) -> None:
    """Make the process die in the `call`-th call of a method, before or after its work."""
    original: Callable[..., Any] = getattr(target, name)
    calls = 0

    def dying(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        result = original(*arguments, **keywords)
        if calls == call:
            raise Killed
        return result

    monkeypatch.setattr(target, name, dying)


def kill_and_resume(
    compose: Compose,
    overrides: list[str],
    kill: Callable[[pytest.MonkeyPatch], None],
    then: Sequence[str] = (),
) -> Path:
    """Return the run; ``then``: overrides of the process that resumes it."""
    with pytest.MonkeyPatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            run(compose(*overrides, "name=killed"))
    run(compose(*overrides, *then, "name=killed", "resume=outputs/killed"))
    return Path("outputs/killed")


ALL_PAIRS = [
    *((name, "onecycle") for name in OPTIMIZERS),
    *(("adamw", name) for name in SCHEDULERS),
]
QUICK_PAIRS = [("adamw", "plateau")]


@pytest.mark.parametrize(
    ("optim", "scheduler"),
    [
        *QUICK_PAIRS,
        *(
            pytest.param(*p, marks=pytest.mark.slow)
            for p in dict.fromkeys(ALL_PAIRS)
            if p not in QUICK_PAIRS
        ),
    ],
)
def test_every_optimizer_and_scheduler_resumes_bit_for_bit(
    compose: Compose, optim: str, scheduler: str
) -> None:
    overrides = [
        f"optim={optim}",
        f"scheduler={scheduler}",
        f"trainer.epochs={EPOCHS}",
        *EVERYTHING,
    ]
    run(compose(*overrides, "name=whole"))
    resumed = kill_and_resume(
        compose,
        overrides,
        lambda patch: kill_in(patch, recording.Recorder, "__call__", after=True, call=2),
    )
    assert_same_bytes(Path("outputs/whole"), resumed, "last.pt")
    assert_same_bytes(Path("outputs/whole"), resumed, "best.pt")


MOMENTS = {
    "before the first checkpoint": (recording.Recorder, "_save_best", False, 1),
    "between best and last": (recording.Recorder, "_save_best", True, 2),
    "between last and journal": (recording.Recorder, "_write_metrics", False, 2),
    "after the journal": (Journal, "sync", True, 2),
    "after the last epoch": (recording.Recorder, "__call__", True, EPOCHS),
}


@pytest.mark.parametrize("moment", one_fast(MOMENTS, "between last and journal"))
def test_no_moment_to_die_loses_or_repeats_an_epoch(
    compose: Compose, moment: tuple[Any, str, bool, int]
) -> None:
    overrides = [
        f"trainer.epochs={EPOCHS}",
        *SMALL,
        "trainer.accumulate=2",
        "loss=ce_f1",
    ]
    run(compose(*overrides, "name=whole"))
    target, name, after, call = moment
    resumed = kill_and_resume(
        compose, overrides, lambda p: kill_in(p, target, name, after=after, call=call)
    )
    assert_same_bytes(Path("outputs/whole"), resumed, "last.pt")

    def points(run_dir: Path) -> list[tuple[int, str, float]]:
        return [
            (record["step"], key, value)
            for record in read_journal(run_dir)
            if record["type"] == "metrics"
            for key, value in record["values"].items()
            if not key.endswith(TIMES)
        ]

    assert points(resumed) == points(Path("outputs/whole"))
    results = [
        json.loads((path / "result.json").read_text()) for path in (Path("outputs/whole"), resumed)
    ]
    assert [r["state"] for r in results] == ["finished", "finished"]
    assert results[0]["best_epoch"] == results[1]["best_epoch"]
    assert len({r["uid"] for r in read_journal(resumed) if r["type"] == "start"}) == 1


class LateSignal(list[int]):
    """`stop_requests` with a Ctrl-C that is noticed after the n-th update."""

    def __init__(self, looks: int) -> None:
        super().__init__([signal.SIGINT])
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


def stop_at(compose: Compose, overrides: list[str], update: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_module, "stop_requests", lambda *_, **__: contextlib.nullcontext(LateSignal(update))
        )
        with pytest.raises(run_module.Stopped, match="visionsweep train resume=outputs/killed"):
            run(compose(*overrides, "name=killed"))


def test_a_run_stopped_within_an_epoch_resumes_bit_for_bit(compose: Compose) -> None:
    overrides = [f"trainer.epochs={EPOCHS}", "trainer.accumulate=2", *EVERYTHING]
    run(compose(*overrides, "name=whole"))

    stop_at(compose, overrides, update=8)  # the third of the second epoch
    assert json.loads(Path("outputs/killed/result.json").read_text())["state"] == "stopped"
    assert checkpoint.load(Path("outputs/killed/checkpoints/last.pt"))["state"]["step"] == 8
    run(compose(*overrides, "name=killed", "resume=outputs/killed"))
    assert_same_bytes(Path("outputs/whole"), Path("outputs/killed"), "last.pt")
    assert json.loads(Path("outputs/killed/result.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_stop_at_the_last_update_of_an_epoch_leaves_only_its_evaluation(compose: Compose) -> None:
    overrides = ["trainer.epochs=2", *SMALL, "model.drop_rate=0.3"]  # 9 updates per epoch
    run(compose(*overrides, "name=whole"))
    stop_at(compose, overrides, update=9)
    run(compose(*overrides, "name=killed", "resume=outputs/killed"))
    history = checkpoint.load(Path("outputs/killed/checkpoints/last.pt"))["history"]
    assert history[0]["num_images"] == 0
    assert "train/images_per_second" not in history[0]["metrics"]
    whole, killed = (
        leaves(checkpoint.load(Path(f"outputs/{name}/checkpoints/last.pt"))["state"])
        for name in ("whole", "killed")
    )
    for key, value in whole.items():
        assert (
            torch.equal(value, killed[key])
            if isinstance(value, torch.Tensor)
            else value == killed[key]
        ), key


@pytest.mark.slow
def test_early_stopping_that_fired_stays_fired(compose: Compose) -> None:
    """A run that died after its last epoch and before its result does not train further."""
    overrides = ["trainer.epochs=9", *SMALL, "trainer.early_stopping.patience=1"]
    overrides += ["trainer.early_stopping.min_delta=0.5"]
    run(compose(*overrides, "name=whole"))
    ended = json.loads(Path("outputs/whole/result.json").read_text())["epochs"]
    assert ended < 9
    resumed = kill_and_resume(
        compose, overrides, lambda patch: kill_in(patch, run_module, "finish", after=False, call=1)
    )
    assert json.loads((resumed / "result.json").read_text())["epochs"] == ended
    assert_same_bytes(Path("outputs/whole"), resumed, "last.pt")


@pytest.mark.slow
def test_the_summary_is_recorded_once(compose: Compose) -> None:
    resumed = kill_and_resume(
        compose,
        [],
        lambda patch: kill_in(patch, finish_module, "write_result", after=False, call=1),
    )
    summaries = [r for r in read_journal(resumed) if "best/epoch" in r.get("values", ())]
    assert len(summaries) == 1


def test_ctrl_c_at_the_end_is_a_stop_like_any_other(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish_module, "write_predictions", interrupt)
        with pytest.raises(run_module.Stopped):
            run(compose(*SMALL, "name=killed"))
    assert json.loads(Path("outputs/killed/result.json").read_text())["state"] == "stopped"
    run(compose(*SMALL, "name=killed", "resume=outputs/killed"))
    assert json.loads(Path("outputs/killed/result.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_a_notebook_resumes_a_run_by_name(compose: Compose) -> None:
    overrides = ["trainer.epochs=3", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, recording.Recorder, "__call__", after=True, call=1)
        with pytest.raises(Killed):
            run(compose(*overrides, "name=killed"))
    with pytest.raises(UserError, match=r"trainer\.epochs: 3 -> 4"):
        run(compose("trainer.epochs=4", *SMALL, "resume=outputs/killed"))
    with pytest.raises(UserError, match="holds no run"):
        run(compose(*overrides, "resume=outputs/nope"))
    run(compose(*overrides, "resume=outputs/killed"))
    record = json.loads(Path("outputs/killed/environment.json").read_text())
    assert len(record["resumed"]) == 1
    assert len(json.loads(Path("outputs/killed/result.json").read_text())["metrics"]) > 5


def test_two_runs_of_one_seed_are_the_same_and_another_seed_is_not(compose: Compose) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(compose(*EVERYTHING, "trainer.epochs=1", f"name={name}", f"seed={seed}"))
    assert_same_bytes(Path("outputs/a"), Path("outputs/b"), "last.pt")
    first, other = (
        checkpoint.load(Path(f"outputs/{n}/checkpoints/last.pt"))["state"]["model"] for n in "ac"
    )
    assert not torch.equal(first["classifier.4.weight"], other["classifier.4.weight"])


def test_data_that_changed_is_refused(compose: Compose) -> None:
    overrides = [*SMALL, "name=killed"]
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, recording.Recorder, "__call__", after=True, call=1)
        with pytest.raises(Killed):
            run(compose(*overrides))
    split = Path("outputs/killed/split.csv")
    split.write_text(split.read_text().replace("train,", "val,", 1))
    before = {
        path: path.read_bytes() for path in Path("outputs/killed").rglob("*") if path.is_file()
    }
    with pytest.raises(UserError, match=r"split\.csv: the data has changed"):
        run(compose(*overrides, "resume=outputs/killed"))
    after = {
        path: path.read_bytes() for path in Path("outputs/killed").rglob("*") if path.is_file()
    }
    assert after == before


def test_other_pixels_under_the_same_names_are_refused(compose: Compose) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (2, 20, 3))
    for name, rows in zip("ab", colours, strict=True):
        folder = Path("photos", name)
        folder.mkdir(parents=True)
        for index, colour in enumerate(rows.tolist()):
            Image.new("RGB", (8, 8), tuple(colour)).save(folder / f"{index}.png")
    overrides = ["data=image_folder", "data.root=photos", "data.image_size=8", "name=killed"]
    overrides += ["data.cache_dir=cache"]
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, recording.Recorder, "__call__", after=True, call=1)
        with pytest.raises(Killed):
            run(compose(*overrides))
    image = Path("photos/b/7.png")
    original = image.read_bytes()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(image)
    with pytest.raises(UserError, match=r"the images of \w+ have changed since the run started"):
        run(compose(*overrides, "resume=outputs/killed"))

    image.write_bytes(original)  # another time stamp does not matter
    run(compose(*overrides, "resume=outputs/killed"))


def zero(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[20_000:20_100] = bytes(100)
    path.write_bytes(contents)


def reverse_classes(path: Path) -> None:
    inference = checkpoint.load(path)["inference"]
    names = inference["class_names"][::-1]
    rewrite(path, inference=inference | {"class_names": names})


def rewrite(path: Path, **changes: Any) -> None:
    checkpoint.save(checkpoint.load(path) | changes, path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:70_000]),
    "zeroed in part": zero,
    "of an earlier epoch": lambda path: rewrite(path, epoch=1),
    "of another model": lambda path: rewrite(path, model={"weight": torch.zeros(3)}),
    "of classes in another order": reverse_classes,
    "of another kind": lambda path: rewrite(path, model=None),
}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_noticed_before_training(compose: Compose) -> None:
    overrides = ["trainer.epochs=4", *SMALL, "name=killed"]
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, recording.Recorder, "__call__", after=True, call=3)
        with pytest.raises(Killed):
            run(compose(*overrides))
    best, last = (Path(f"outputs/killed/checkpoints/{name}.pt") for name in ("best", "last"))
    assert checkpoint.load(best)["epoch"] == 3
    whole, before = best.read_bytes(), last.read_bytes()
    lost = r"best\.pt.* best epoch so far, 3\. Restore it, or remove .*last\.pt"
    records = Path("outputs/killed/events.jsonl").read_bytes()
    for damage in DAMAGES.values():
        damage(best)
        with pytest.raises(UserError, match=lost):
            run(compose(*overrides, "resume=outputs/killed"))
        assert last.read_bytes() == before
        best.write_bytes(whole)

    for key in ("state", "best", "history", "rng"):
        rewrite(last, **{key: {"a": 1}})
        with pytest.raises(UserError, match=r"last\.pt: does not fit this run"):
            run(compose(*overrides, "resume=outputs/killed"))
        last.write_bytes(before)

    # Nothing was recorded of these attempts, least of all that the run has failed.
    assert Path("outputs/killed/events.jsonl").read_bytes() == records
    assert not Path("outputs/killed/result.json").exists()
    best.unlink()
    last.unlink()  # as the message says
    run(compose(*overrides, "resume=outputs/killed"))
    assert checkpoint.load(best)["epoch"] >= 3


def test_the_best_checkpoint_is_the_best_epoch_and_patience_ends_the_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = recording.Recorder.__call__
    weights: dict[int, torch.Tensor] = {}
    rigged = {1: 0.2, 2: 0.8, 3: 0.8, 4: 0.3}

    def rig(self: recording.Recorder, result: EpochResult) -> bool:
        weights[result.epoch] = self._parts.state.model.state_dict()["classifier.4.weight"].clone()
        return original(self, replace(result, objective=rigged[result.epoch]))

    monkeypatch.setattr(recording.Recorder, "__call__", rig)
    patience = "trainer.early_stopping.patience=2"
    assert run(compose("name=rigged", *SMALL, "trainer.epochs=9", patience)) == 0.8
    best = checkpoint.load(Path("outputs/rigged/checkpoints/best.pt"))
    assert best["epoch"] == 2
    assert torch.equal(best["model"]["classifier.4.weight"], weights[2])
    assert json.loads(Path("outputs/rigged/result.json").read_text())["epochs"] == 4
