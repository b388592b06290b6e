"""`visionsweep ensemble` on runs whose networks were never trained, as a user types it."""

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from tests.answer.made import make_finished_run, split_of
from tests.predict.untrained_run import MODEL, expected_probabilities, make_run
from visionsweep.answer.combined_run import new_directory
from visionsweep.answer.members import read_members
from visionsweep.cli.ensemble import main
from visionsweep.errors import ConfigError
from visionsweep.models.cnn import CNN
from visionsweep.predict.command import main as predict
from visionsweep.report.command import main as report
from visionsweep.rundir.layout import BEST, CONFIG, DECISIONS, FIGURES, PREDICTIONS, RESULT
from visionsweep.rundir.predictions import read_predictions

NUM_IMAGES = 60


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """(60, 3, 8, 10) uint8, as the network sees them; the current directory is empty."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (NUM_IMAGES, 3, 8, 10), dtype=np.uint8)


Make = Callable[..., CNN]


@pytest.fixture
def make(images: NDArray[np.uint8], tmp_path: Path) -> Make:
    """Return a function that writes a finished run and returns its network.

    The targets are what the network of seed 99 predicts.
    """
    teacher = make_run(tmp_path / "teacher", seed=99)
    targets = expected_probabilities(teacher, images).argmax(axis=1)

    def finished(
        place: str,
        seed: int,
        rows: slice = slice(None),
        value: float = 0.5,
        **config: object,
    ) -> CNN:
        model = make_run(tmp_path / "made", seed=seed)
        probabilities = expected_probabilities(model, images[rows]) * 0.6
        probabilities[np.arange(len(probabilities)), targets[rows]] += 0.4
        names = [f"{index:02}.png" for index in range(NUM_IMAGES)][rows]
        val = split_of(np.log(probabilities).astype(np.float32), targets[rows], names)
        objective = {"metric": "val/f1_macro", "direction": "maximize", "value": value}
        run_dir = make_finished_run(
            tmp_path / place,
            val,
            config={**yaml.safe_load(MODEL), **config},
            result={"objective": objective, "others": {}},
        )
        (run_dir / BEST).parent.mkdir()
        shutil.copy(tmp_path / "made" / BEST, run_dir / BEST)
        return model

    return finished


def shown_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    error = capsys.readouterr().err
    assert caught.value.code == 1
    assert error.count("\n") == 1
    return error.removeprefix("error: ")


def submission(*arguments: str) -> NDArray[np.float64]:
    job = ["data.predict=images", "probabilities=true", "device=cpu", *arguments]
    assert predict(job) == 0
    with Path("submission.csv").open(newline="") as stream:
        return np.array([row[2:] for row in csv.reader(stream)][1:], dtype=float)


def write_images(images: NDArray[np.uint8], folder: Path) -> None:
    folder.mkdir()
    for index, pixels in enumerate(images):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{index:02}.png")


def test_the_trials_of_a_sweep_become_a_run_of_their_own(
    make: Make,
    images: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [make(f"multirun/s/{seed}", seed) for seed in range(3)]
    assert main(["multirun/s", "out=outputs/e", "method=uniform"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "weight  val/log_loss  member"
    assert any(line.startswith("ensemble of ") and "cross-fitted" in line for line in lines)
    assert any(line.startswith("gain of the ensemble: ") for line in lines)
    assert lines[-1] == "wrote outputs/e"
    entries = yaml.safe_load((tmp_path / "outputs/e" / CONFIG).read_text())["ensemble"]["members"]
    weights = {int(Path(entry["run"]).name): entry["weight"] for entry in entries}
    assert sum(weights.values()) == pytest.approx(1)
    assert len(weights) > 1
    first = entries[0]
    copied = tmp_path / "outputs/e" / first["directory"] / BEST
    assert os.path.samefile(copied, Path(first["run"]) / BEST)  # a hard link
    shutil.rmtree(tmp_path / "multirun")
    write_images(images, tmp_path / "images")
    expected = sum(
        weight * expected_probabilities(models[number], images)
        for number, weight in weights.items()
    )
    np.testing.assert_allclose(submission("run=outputs/e"), expected, atol=1e-6)
    assert f"outputs/e: the mean of {len(entries)} networks" in capsys.readouterr().out
    assert report(["outputs/e"]) == 0
    assert (tmp_path / "outputs/e" / FIGURES / "confusion_matrix.png").exists()


def test_the_stored_predictions_are_cross_fitted_and_those_of_the_result(
    make: Make, tmp_path: Path
) -> None:
    for seed in range(4):
        make(f"multirun/s/{seed}", seed)
    assert main(["multirun/s", "out=outputs/e", "metric=f1_macro"]) == 0
    result = json.loads((tmp_path / "outputs/e" / RESULT).read_text())
    val = read_predictions(tmp_path / "outputs/e").val
    assert result["objective"]["value"] == pytest.approx(result["metrics"]["val/f1_macro"])
    assert result["ensemble"]["cross_fitted"] <= result["ensemble"]["on_the_images_chosen_on"]
    members = read_members([tmp_path / "multirun/s"])
    assert val.ids.tolist() == members.members[0].val.ids.tolist()
    config = yaml.safe_load((tmp_path / "outputs/e" / CONFIG).read_text())
    weights = np.zeros(4)
    for entry in config["ensemble"]["members"]:
        weights[int(Path(entry["run"]).name)] = entry["weight"]
    raw = np.tensordot(weights, members.probabilities(), axes=1)
    assert not np.allclose(val.probabilities(), raw, atol=1e-6)


def test_the_folds_of_a_trial_are_pooled_and_predict_alike(
    make: Make,
    images: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folds = [slice(fold, None, 3) for fold in range(3)]
    for trial, names in (("0", "fold_{}"), ("1", "fold_{}")):
        for fold, rows in enumerate(folds):
            split = {"fold": fold, "num_folds": 3, "val_fraction": 0.2}
            make(f"multirun/f/{trial}/{names.format(fold)}", fold, rows, split=split)
    make("multirun/f/2/fold_0", 7, folds[0], split={"fold": 0, "num_folds": 3})  # pruned
    assert main(["multirun/f", "out=outputs/e", "method=uniform"]) == 0
    output = capsys.readouterr().out
    assert "left out: multirun/f/2" in output or "left out: multirun/f/2/fold_0" in output
    assert "1 of 3 folds" in output
    assert len(read_predictions(tmp_path / "outputs/e").val.ids) == NUM_IMAGES
    write_images(images, tmp_path / "images")
    together = submission("run=outputs/e")
    np.testing.assert_allclose(together, submission("run=multirun/f/0"), atol=1e-9)
    models = [make_run(tmp_path / "again", seed=fold) for fold in range(3)]
    expected = sum(expected_probabilities(model, images) for model in models) / 3
    np.testing.assert_allclose(together, expected, atol=1e-6)


def test_single_runs_with_other_folds_in_one_folder_are_folds_of_one(make: Make) -> None:
    for fold in range(3):
        split = {"fold": fold, "num_folds": 3}
        make(f"outputs/run{fold}", fold, slice(fold, None, 3), split=split)
    (member,) = read_members([Path("outputs")]).members
    assert len(member.runs) == 3
    assert member.name == "outputs/run0 and 2 other folds"


def test_decisions_are_stored_applied_and_named(
    make: Make,
    images: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make("outputs/a", 1)
    asked = ["decisions=prior", "decisions.test_prior=[0.01,0.01,0.98]"]
    assert main(["outputs/a", "out=outputs/e", *asked]) == 0
    stored = json.loads((tmp_path / "outputs/e" / DECISIONS).read_text())["decisions"]
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith("decisions=prior for a test of the given class shares: macro F1 ")
    write_images(images, tmp_path / "images")
    plain = submission("run=outputs/e", "decisions=none")
    capsys.readouterr()
    decided = submission("run=outputs/e")
    assert f"{line}; decisions=none leaves them out\n" in capsys.readouterr().out
    logits = np.log(plain) / stored["temperature"] + stored["offsets"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(decided, expected, rtol=1e-5)
    assert (decided.argmax(axis=1) == 2).mean() > (plain.argmax(axis=1) == 2).mean()
    # without an ensemble: fitted to the run's own predictions, and not kept
    fitted = submission("run=outputs/a", *asked)
    np.testing.assert_allclose(fitted, decided, rtol=1e-5)
    assert not (tmp_path / "outputs/a" / DECISIONS).exists()
    np.testing.assert_allclose(submission("run=outputs/a"), plain)


def test_weights_that_a_sweep_removed_are_named(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(4):
        make(f"multirun/s/{seed}", seed, value=0.9 - seed / 10)

    def used(out: str) -> set[int]:
        config = yaml.safe_load((tmp_path / out / CONFIG).read_text())
        return {int(Path(entry["run"]).name) for entry in config["ensemble"]["members"]}

    assert main(["multirun/s", "out=all"]) == 0
    wanted = used("all")
    for seed in wanted:
        (tmp_path / f"multirun/s/{seed}" / BEST).unlink()
    capsys.readouterr()
    assert main(["multirun/s", "out=rest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{4 - len(wanted)} of 4 members have their weights")
    assert lines[1].startswith("best.pt is gone of multirun/s/")
    assert f"hydra.sweeper.keep_checkpoints={max(wanted) + 1} would have kept" in lines[1]
    assert used("rest") <= set(range(4)) - wanted
    for seed in set(range(4)) - wanted:
        (tmp_path / f"multirun/s/{seed}" / BEST).unlink()
    error = shown_error(capsys, "multirun/s", "out=outputs/e2")
    assert error.startswith("ensemble: no best.pt is left, e.g. in multirun/s/0; ")
    assert not (tmp_path / "outputs/e2").exists()


def test_runs_that_do_not_belong_together_are_refused(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("outputs/a", 0)
    make("outputs/b", 1, slice(0, 50))
    error = shown_error(capsys, "[outputs/a,outputs/b]", "out=e")
    assert error.startswith(
        "ensemble: the validation images of outputs/a and outputs/b differ (60 and 50, 50 in common"
    )
    assert main(["outputs/a", "out=e"]) == 0
    capsys.readouterr()
    assert main(["outputs/a", "e", "out=e2"]) == 0
    assert capsys.readouterr().out.startswith("left out: e (an ensemble itself)\n")
    assert shown_error(capsys, "e", "out=e3").startswith("ensemble: found nothing but ensembles")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ensemble: expected runs or a sweep, e.g. visionsweep ensemble multirun/STUDY"),
        (["outputs/a"], "out: not set; give out=outputs/NAME"),
        (["outputs/a", "out="], "out: got nothing after '='"),
        (["outputs/a", "out=x", "out=y"], "out: given twice"),
        (["nowhere", "out=x"], "nowhere does not exist; expected the directory of a run or a"),
        (["outputs/a", "out=outputs"], "out: outputs exists already; choose another name"),
        (["outputs/a", "out=x", "metod=greedy"], "metod: no such key; did you mean method? (keys:"),
        (
            ["outputs/a", "out=x", "method=gredy"],
            "method: expected greedy, weights, uniform, soup, g",
        ),
        (["outputs/a", "out=x", "metric=f1"], "metric: expected log_loss, f1_macro, accuracy, bal"),
        (
            ["outputs/a", "out=x", "method=weights", "metric=accuracy"],
            "metric=accuracy: is for meth",
        ),
        (["outputs/a", "out=x", "decisions=yes"], "decisions: expected none, auto, prior, offsets"),
        (
            ["outputs/a", "out=x", "decisions.test_prior=uniform"],
            "decisions.test_prior=uniform: is",
        ),
        (
            ["outputs/a", "out=x", "decisions=auto", "decisions.test_prior=[1,2]"],
            "decisions.test_prior: expected 3 shares, one per class in their order, got 2",
        ),
        (["outputs/a", "out=x", "decisions=prior"], "decisions=prior: changes nothing if the test"),
        (["outputs/a", "out=x", "method=soup"], "method=soup: expected at least 2 runs with weigh"),
        (
            ["outputs/a", "out=x", "method=soup", "decisions=auto"],
            "decisions: a soup is one network; give them to predict",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str],
    message: str,
    make: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make("outputs/a", 0)
    before = sorted(tmp_path.rglob("*"))
    assert shown_error(capsys, *arguments).startswith(message)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_soup_needs_one_pretrained_start(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("outputs/a", 0)
    make("outputs/b", 1)
    error = shown_error(capsys, "outputs/a", "outputs/b", "out=x", "method=soup")
    assert error.startswith("method=soup: outputs/a did not start from pretrained weights")
    model = yaml.safe_load(MODEL)["model"]
    for name, pretrained in (("c", "one.pth"), ("d", "other.pth")):
        make(f"outputs/{name}", 0, model={**model, "pretrained": pretrained})
    error = shown_error(capsys, "outputs/c", "outputs/d", "out=x", "method=soup")
    assert error.startswith(
        "method=soup: outputs/c and outputs/d started differently (model.pretrained: one.pth and "
    )
    for fold in range(2):
        split = {"fold": fold, "num_folds": 2}
        make(f"folds/1/fold_{fold}", fold, slice(fold, None, 2), split=split)
    error = shown_error(capsys, "folds", "out=x", "method=soup")
    assert error.startswith(
        "method=soup: folds/1 has 2 folds, each of which trained on the others'"
    )


def test_a_directory_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), new_directory(tmp_path / "a" / "x") as directory:
        (directory / "file").touch()
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == []
    with new_directory(tmp_path / "x") as directory:
        (directory / "file").touch()
        assert not (tmp_path / "x").exists()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["file"]
    with pytest.raises(ConfigError, match="exists already"), new_directory(tmp_path / "x"):
        pass


def test_a_member_outside_of_the_ensemble_is_refused(
    make: Make,
    images: NDArray[np.uint8],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A directory may come from a stranger."""
    make("outputs/a", 0)
    assert main(["outputs/a", "out=e"]) == 0
    write_images(images[:2], tmp_path / "images")
    path = tmp_path / "e" / CONFIG
    config = yaml.safe_load(path.read_text())
    for place, weight in (("../outputs/a", 1.0), ("members/0", 0.0), ("members/0", float("nan"))):
        config["ensemble"]["members"] = [{"directory": place, "weight": weight}]
        path.write_text(yaml.safe_dump(config))
        capsys.readouterr()
        assert predict(["run=e", "data.predict=images", "device=cpu"]) == 1
        error = capsys.readouterr().err
        assert "is not the config of an ensemble (" in error
        assert error.count("\n") == 1
    assert (tmp_path / "e" / PREDICTIONS).exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.export, and the first import of mlflow.pyfunc
def test_mlflow_gets_one_model(make: Make, images: NDArray[np.uint8], tmp_path: Path) -> None:
    import mlflow

    from visionsweep.tracking.sync import main as sync

    models = [make(f"outputs/{seed}", seed) for seed in range(2)]
    assert main(["outputs", "out=ensemble", "method=uniform"]) == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert sync(["ensemble", "--uri", uri, "--verify"]) == 0
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("experiment") or client.search_experiments()[0]
    (run,) = client.search_runs([experiment.experiment_id])
    assert "ensemble of 2" in run.info.run_name
    assert run.data.params["ensemble.method"] == "uniform"
    (model,) = client.search_logged_models([experiment.experiment_id])
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    expected = sum(expected_probabilities(model, images) for model in models) / 2
    for batch_size in (1, 5):
        found = loaded.predict(images[:batch_size])
        np.testing.assert_allclose(found, expected[:batch_size], atol=1e-6)
