"""A single run in a notebook: what it leaves in its directory, and what it shows."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from tests.conftest import Compose
from tests.images import CLASSES, make_csv, make_folder, make_image
from visionsweep.config.typed_text import quote
from visionsweep.data.split_manifest import read_split
from visionsweep.run import check, run
from visionsweep.rundir.journal import read_journal
from visionsweep.rundir.layout import LAST, PREDICTIONS
from visionsweep.rundir.predictions import read_predictions
from visionsweep.training.predictor import load_predictor

SMALL = ["split.val_fraction=0.7", "trainer.batch_size=128", "trainer.epochs=2"]


def test_predictions_are_those_of_the_best_checkpoint(compose: Compose, tmp_path: Path) -> None:
    """They agree with `predict`, with `split.csv`, and with the metrics of the run."""
    photos = tmp_path / "photos"
    make_folder(photos / "train")
    for index, name in enumerate(CLASSES):
        (photos / "test" / name).mkdir(parents=True)
        make_image(index, 99).save(photos / "test" / name / "0.png")
    data = ["data=image_folder", f"data.root={quote(str(photos))}", "data.image_size=8"]
    # At this learning rate the network stays random, so that there are mistakes.
    run(compose("name=a", *data, "data.cache_dir=none", "trainer.batch_size=8", "optim.lr=1e-9"))
    run_dir = Path("outputs/a")
    predictions = read_predictions(run_dir)
    assert predictions.test is not None
    result = json.loads((run_dir / "result.json").read_text())
    rows = read_split(run_dir / "split.csv")
    for name, split in (("val", predictions.val), ("test", predictions.test)):
        expected = [(row.id, row.class_name) for row in rows if row.split == name]
        names = [predictions.class_names[target] for target in split.targets]
        assert list(zip(split.ids.tolist(), names, strict=True)) == expected
        metrics = result["metrics"] if name == "val" else result["test"]
        accuracy = float((split.logits.argmax(1) == split.targets).mean())
        assert metrics[f"{name}/accuracy"] == pytest.approx(accuracy, abs=1e-12)
    # The pixels and the probabilities of the mistakes are those of the trained network.
    images = torch.from_numpy(predictions.mistake_images)
    assert len(images)
    with torch.inference_mode():
        expected_probabilities = load_predictor(run_dir)(images).numpy()
    np.testing.assert_allclose(
        predictions.val.probabilities()[predictions.mistakes], expected_probabilities, atol=1e-5
    )
    artifacts = [r["path"] for r in read_journal(run_dir) if r["type"] == "artifact"]
    assert PREDICTIONS in artifacts
    assert not [path for path in artifacts if path.startswith("figures")]
    assert (run_dir / LAST).exists()  # only a trial of a sweep loses it


def test_predictions_hold_the_groups_of_their_images(compose: Compose, tmp_path: Path) -> None:
    make_csv(tmp_path)
    data = ["data=csv", "data.path=train.csv", "data.label=class", "data.group=person"]
    small = ["data.image_size=8", "data.cache_dir=none", "trainer.batch_size=8"]
    run(compose("name=a", *data, *small))
    val = read_predictions(Path("outputs/a")).val
    assert val.groups is not None
    with Path("train.csv").open(newline="") as stream:
        people = {row["path"]: row["person"] for row in csv.DictReader(stream)}
    assert val.groups.tolist() == [people[name] for name in val.ids.tolist()]


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_predictions_of_every_epoch_are_kept(compose: Compose, checkpoint: str) -> None:
    """At this rate the fifth epoch is the best, so that `last` keeps another one."""
    lr = ["optim.lr=0.03", "scheduler=none", "trainer.epochs=6", f"trainer.checkpoint={checkpoint}"]
    value = run(compose("name=a", *SMALL, *lr))
    result = json.loads(Path("outputs/a/result.json").read_text())
    found = read_predictions(Path("outputs/a"))
    assert found.epoch_preds is not None
    scores = [
        record["values"]["val/f1_macro"]
        for record in read_journal(Path("outputs/a"))
        if "val/f1_macro" in record.get("values", ())
    ]
    names = list(range(10))
    for preds, score in zip(found.epoch_preds, scores, strict=True):
        expected = f1_score(found.val.targets, preds, average="macro", labels=names)
        assert score == pytest.approx(expected)
    chosen = 6 if checkpoint == "last" else 1 + int(np.argmax(scores))
    assert np.argmax(scores) != 5
    assert (result["best_epoch"], value) == (chosen, scores[chosen - 1])
    np.testing.assert_array_equal(found.epoch_preds[chosen - 1], found.val.logits.argmax(axis=1))


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        (["split.val_fraction=0.1"], True),
        (["split.val_fraction=0.1", "trainer.checkpoint=last"], False),
        (["split.val_fraction=0.2"], False),
    ],
)
def test_choosing_the_epoch_on_few_images_is_warned_of(
    compose: Compose, caplog: pytest.LogCaptureFixture, settings: list[str], warns: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        check(compose(*settings))
    line = "180 validation images are few to choose the best epoch by"
    assert (line in caplog.text) == warns


def test_a_notebook_shows_the_epochs_and_where_the_run_is(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = logging.getLogger("visionsweep")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(package, "level", logging.NOTSET)
    try:
        for name in "ab":  # the second run adds no second handler
            run(compose(*SMALL, f"name={name}"))
    finally:
        package.manager._clear_cache()  # type: ignore[attr-defined]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("epoch 2/2")]) == 2
    assert [line for line in lines if line.startswith("run:")] == [
        "run: outputs/a",
        "run: outputs/b",
    ]


def test_configured_logging_is_left_alone(compose: Compose) -> None:
    package = logging.getLogger("visionsweep")
    handlers, level = package.handlers[:], package.level  # pytest has handlers on the root logger
    run(compose(*SMALL, "name=a"))
    assert (package.handlers, package.level) == (handlers, level)
