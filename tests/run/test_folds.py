"""`split.fold=all`: every fold one after another, and what follows from all of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import f1_score

import visionsweep.run.train as run_module
from tests.conftest import Command, CommandLine, Compose
from tests.images import make_csv, make_folder
from tests.run.test_resume import Killed, kill_in
from visionsweep.data.split_manifest import read_split
from visionsweep.errors import ConfigError
from visionsweep.run import run
from visionsweep.run.folds import pool_predictions
from visionsweep.rundir.description import read_environment
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.predictions import Predictions, SplitPredictions, read_predictions

# 1,198 training images in 10 updates.
FOLDS = ["split.fold=all", "split.num_folds=3", "trainer.batch_size=120", "name=one"]


def result_of(directory: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return result


def test_the_objective_is_that_of_every_image_by_the_network_that_did_not_see_it(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    value = run(compose(*FOLDS))
    directory = tmp_path / "outputs/one"
    folds = [read_predictions(directory / f"fold_{fold}").val for fold in range(3)]
    ids = np.concatenate([fold.ids for fold in folds])
    assert len(set(ids)) == len(ids) == 1797
    targets = np.concatenate([fold.targets for fold in folds])
    preds = np.concatenate([fold.logits.argmax(axis=1) for fold in folds])
    assert value == pytest.approx(f1_score(targets, preds, average="macro"), abs=1e-12)
    result = result_of(directory)
    assert result["state"] == "finished"
    assert result["objective"]["value"] == value
    scores = [f1_score(f.targets, f.logits.argmax(axis=1), average="macro") for f in folds]
    assert [fold["value"] for fold in result["folds"]] == pytest.approx(scores)
    assert result["fold_mean"] == pytest.approx(np.mean(scores))
    assert result["fold_std"] == pytest.approx(np.std(scores, ddof=1))
    pooled = read_predictions(directory).val
    assert set(pooled.ids) == set(ids)
    where = {name: row for row, name in enumerate(pooled.ids)}
    for fold in folds:
        rows = [where[name] for name in fold.ids]
        assert np.array_equal(pooled.logits[rows], fold.logits)
    [line] = [r.getMessage() for r in caplog.records if "of all 1,797 images" in r.getMessage()]
    assert line.startswith(f"3 folds: val/f1_macro {value:.4f} of all 1,797 images, mean of")
    # Each fold is a single run of its own, also for `resume` and MLflow.
    fold = directory / "fold_1"
    assert read_environment(fold)["overrides"] == ["split.fold=1"]
    start, *_, record, end = read_journal(fold)
    assert start["name"].startswith("one fold 1 ")
    assert record["values"] == {"folds/f1_macro": value}
    assert end["state"] == "finished"


def test_a_fold_is_that_of_a_single_run(compose: Compose, tmp_path: Path) -> None:
    run(compose(*FOLDS, "trainer.epochs=1"))
    single = ["split.fold=2", "split.num_folds=3", "trainer.batch_size=120", "trainer.epochs=1"]
    run(compose(*single, "name=two"))
    one, two = tmp_path / "outputs/one/fold_2", tmp_path / "outputs/two"
    assert read_split(one / "split.csv") == read_split(two / "split.csv")
    assert np.array_equal(read_predictions(one).val.logits, read_predictions(two).val.logits)


@pytest.mark.parametrize("call", [1, 3])
def test_a_run_that_died_in_any_fold_resumes_there(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    whole = run(compose(*FOLDS, "name=whole"))
    kill_in(monkeypatch, run_module, "finish", after=False, call=call)
    with pytest.raises(Killed):
        run(compose(*FOLDS))
    monkeypatch.undo()
    directory = tmp_path / "outputs/one"
    assert not (directory / "result.json").exists()
    done = sorted(path.parent.name for path in directory.glob("fold_*/result.json"))
    assert len(done) == call - 1
    times = [(directory / name / "result.json").stat().st_mtime_ns for name in done]
    monkeypatch.chdir(tmp_path)
    assert run(compose(*FOLDS, f"resume={directory}")) == whole
    assert [(directory / name / "result.json").stat().st_mtime_ns for name in done] == times
    ours, theirs = read_predictions(directory).val, read_predictions(tmp_path / "outputs/whole").val
    assert np.array_equal(ours.logits, theirs.logits)


def test_another_config_is_no_resume(compose: Compose, tmp_path: Path) -> None:
    run(compose(*FOLDS, "trainer.epochs=1"))
    (tmp_path / "outputs/one/result.json").unlink()
    with pytest.raises(ConfigError, match=r"trainer\.epochs: 1 -> 2"):
        run(compose(*FOLDS, f"resume={tmp_path / 'outputs/one'}"))


def test_groups_stay_together_and_each_validates_once(compose: Compose, tmp_path: Path) -> None:
    table = make_csv(tmp_path, people=6)
    data = [
        "data=csv",
        f"data.path={table}",
        "data.group=person",
        "data.label=class",
        "data.image_size=8",
    ]
    run(compose(*data, "split.fold=all", "split.num_folds=3", "name=g", "trainer.batch_size=4"))
    seen: list[str] = []
    for fold in range(3):
        rows = read_split(tmp_path / f"outputs/g/fold_{fold}/split.csv")
        val = {row.group for row in rows if row.split == "val"}
        assert not val & {row.group for row in rows if row.split == "train"}
        seen += sorted(val)
    assert len(seen) == len(set(seen)) == 6


def test_test_images_get_the_mean_prediction_of_the_folds() -> None:
    logits = [
        np.array([[2.0, 0.0], [0.0, 1.0]], np.float32),
        np.array([[0.0, 3.0]] * 2, np.float32),
    ]
    names = np.array(["a", "b"])
    none = np.zeros(0, np.int64), np.zeros((0, 1, 2, 2), np.uint8)
    folds = [
        Predictions(
            ["x", "y"],
            SplitPredictions(np.array([f"v{i}"]), np.zeros(1, np.int64), values[:1]),
            SplitPredictions(names, np.array([0, 1]), values),
            *none,
        )
        for i, values in enumerate(logits)
    ]
    test = pool_predictions(folds).test
    assert test is not None
    expected = np.mean([np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in logits], axis=0)
    assert test.probabilities() == pytest.approx(expected, abs=1e-6)


def test_the_worst_mistakes_are_those_of_all_folds(compose: Compose, tmp_path: Path) -> None:
    run(compose(*FOLDS, "trainer.epochs=1"))
    pooled = read_predictions(tmp_path / "outputs/one")
    probs = pooled.val.probabilities()
    wrong = np.flatnonzero(probs.argmax(axis=1) != pooled.val.targets)
    worst = np.sort(probs[wrong].max(axis=1))[::-1][: len(pooled.mistakes)]
    assert len(worst) > 0
    assert probs[pooled.mistakes].max(axis=1) == pytest.approx(worst)


def write_folds(root: Path, folds: list[int]) -> Path:
    """Return a table whose images have these folds, in turn."""
    table = make_csv(root)
    header, *rows = table.read_text().splitlines()
    lines = [f"{header},part", *(f"{row},{folds[i % len(folds)]}" for i, row in enumerate(rows))]
    table.write_text("\n".join(lines) + "\n")
    return table


@pytest.mark.parametrize(
    ("folds", "line"),
    [
        ([0, 1, 2], "split.num_folds: the data has 3 folds of its own (0, 1, 2), not 2; set"),
        ([1, 2], "split.num_folds: the data has folds of its own (1, 2); number them 0 to 1"),
        ([0, -1], "split.num_folds: the data has validation images of its own, which are one"),
    ],
)
def test_other_folds_than_those_of_the_data_are_refused(
    compose: Compose, tmp_path: Path, folds: list[int], line: str
) -> None:
    data = [
        "data=csv",
        f"data.path={write_folds(tmp_path, folds)}",
        "data.split_column=part",
        "data.label=class",
    ]
    cfg = compose(*data, "data.image_size=8", "split.fold=all", "split.num_folds=2", "name=own")
    with pytest.raises(ConfigError) as caught:
        run(cfg)
    assert str(caught.value).startswith(line)
    left = {path.name for path in (tmp_path / "outputs/own").iterdir()}
    assert left <= {".lock", "result.json"}


def test_the_folds_of_the_data_are_used(compose: Compose, tmp_path: Path) -> None:
    table = write_folds(tmp_path, [0, 1, 2])
    data = [
        "data=csv",
        f"data.path={table}",
        "data.split_column=part",
        "data.label=class",
        "data.image_size=8",
    ]
    run(compose(*data, "split.fold=all", "split.num_folds=3", "name=own", "trainer.batch_size=4"))
    rows = read_split(tmp_path / "outputs/own/fold_1/split.csv")
    part_of = {}
    for row in table.read_text().splitlines()[1:]:
        part_of[Path(row.split(",")[0]).name] = row.rpartition(",")[2]
    assert {part_of[Path(row.id).name] for row in rows if row.split == "val"} == {"1"}


def test_a_fold_that_cannot_start_leaves_a_directory_that_can_be_used_again(
    command_line: CommandLine, tmp_path: Path
) -> None:
    quick = ["tracking=none", "trainer.epochs=1", "trainer.threads=1", "trainer.batch_size=120"]
    bad = command_line("split.fold=all", "name=one", *quick, "loss=focal", "loss.gamma=-1")
    assert bad.code == 1
    assert "loss.gamma: expected a number" in bad.stderr
    again = command_line("split.fold=all", "split.num_folds=2", "name=one", *quick)
    assert again.code == 0, again.text
    assert "2 folds: val/f1_macro" in again.stdout
    done = command_line(f"resume={tmp_path / 'outputs/one'}")
    assert "is already finished: nothing to resume" in done.stdout


@pytest.mark.slow
def test_a_sweep_with_other_folds_than_those_of_the_data_is_one_line(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """And the number that the line asks for is right."""
    data = ("data=csv", f"data.path={write_folds(tmp_path, [0, 1, 2])}", "data.image_size=8")
    quick = ("data.split_column=part", "data.label=class", "tracking=none", "trainer.epochs=1")
    sweep = ("--multirun", "study=own", *data, *quick, "trainer.batch_size=8", "loss=f1,focal")
    outcome = command_line(*sweep, "hydra.sweeper.folds=5", "hydra.sweeper.n_trials=1")
    assert outcome.code == 1
    [error] = outcome.stderr.splitlines()
    assert error.endswith(
        "hydra.sweeper.folds: the data has 3 folds of its own (0, 1, 2), not 5; set "
        "hydra.sweeper.folds=3"
    )
    assert error.startswith("error: ")
    assert not list((tmp_path / "multirun/own").glob("[0-9]*"))
    outcome = command_line(*sweep, "hydra.sweeper.folds=3", "hydra.sweeper.n_trials=1")
    assert outcome.code == 0, outcome.text
    assert len(list((tmp_path / "multirun/own").glob("0/fold_[012]/result.json"))) == 3


@pytest.mark.slow
def test_a_sweep_with_folds_from_the_command_line(train: Command, tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos/train").parent
    quick = ["tracking=none", "trainer.epochs=1", "trainer.batch_size=8", "data.image_size=8"]
    done = train(
        *("--multirun", "study=f", "data=image_folder", f"data.root={photos}", *quick),
        *("hydra.sweeper.folds=2", "hydra.sweeper.keep_checkpoints=1", "optim.lr=0.001,0.003"),
        *("hydra.sweeper.n_trials=3", "hydra.launcher.n_jobs=2"),
    )
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "multirun/f"
    header, *rows = (sweep / "trials.csv").read_text().splitlines()
    assert {"fold_mean", "fold_std"} <= set(header.split(","))
    assert len(rows) == 3
    kept = {path.parts[-4] for path in sweep.glob("*/fold_*/checkpoints/best.pt")}
    assert len(list(sweep.glob("*/fold_*/checkpoints/best.pt"))) == 2
    [best] = kept
    assert (sweep / "best").readlink() == Path(best, "fold_0")
    assert OmegaConf.load(sweep / best / "fold_1/config.yaml").split.fold == 1
    table = {line.split(",")[0]: float(line.split(",")[2]) for line in rows}
    for number, value in table.items():
        if (sweep / number).is_dir():  # else a copy
            folds = [read_predictions(sweep / number / f"fold_{i}").val for i in range(2)]
            targets = np.concatenate([fold.targets for fold in folds])
            preds = np.concatenate([fold.logits.argmax(axis=1) for fold in folds])
            expected = f1_score(targets, preds, average="macro", labels=range(3), zero_division=0)
            assert value == pytest.approx(expected, abs=1e-12)
