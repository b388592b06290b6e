"""What the report reads from the predictions of a sweep's runs, against scikit-learn."""

import io
import re
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from tests.answer.made import make_finished_run, split_of
from tests.report.sweep.test_record import trial, write_sweep
from visionsweep.answer.selection import corrected_winner
from visionsweep.report.sweep.findings import MAX_PICTURES, read_findings
from visionsweep.report.sweep.page import sweep_page, write_report
from visionsweep.report.sweep.record import read_sweep
from visionsweep.rundir.confirmation import ConfirmationRecord, write_confirmation
from visionsweep.rundir.copies import Copies, write_copies
from visionsweep.rundir.layout import PREDICTIONS, RANGES
from visionsweep.rundir.predictions import read_predictions, worst_mistakes, write_predictions
from visionsweep.rundir.ranges import Ranges, read_ranges, write_ranges

NUM_CLASSES = 4


def val_of(accuracy, seed=0, num_images=400):
    """Return predictions of 400 images that are right with a probability of `accuracy`."""
    rng = np.random.default_rng(seed)
    targets = np.random.default_rng(99).integers(0, NUM_CLASSES, num_images)
    seen = np.where(rng.random(num_images) < accuracy, targets, (targets + 1) % NUM_CLASSES)
    logits = rng.normal(0, 0.1, (num_images, NUM_CLASSES)).astype(np.float32)
    logits[np.arange(num_images), seen] += rng.uniform(2, 6, num_images).astype(np.float32)
    return split_of(logits, targets)


def f1_of(val, average="macro"):
    return f1_score(val.targets, val.logits.argmax(axis=1), average=average)


@pytest.fixture
def sweep(tmp_path):
    """A sweep of three trials with predictions, and one that failed; #1 is the best."""
    directory = tmp_path / "faces"
    vals = [val_of(0.8, 1), val_of(0.9, 2), val_of(0.7, 3)]
    trials = [trial(n, values=(f1_of(val),)) for n, val in enumerate(vals)]
    failed = trial(3, "failed", values=None, error="loss is nan at epoch 2 <b>")
    write_sweep(directory, [*trials, failed], space={})
    for number, val in enumerate(vals):
        run_dir = make_finished_run(directory / str(number), val)
        mistakes = worst_mistakes(val.logits, val.targets)
        pixels = np.random.default_rng(number).integers(0, 256, (len(mistakes), 3, 40, 60))
        found = read_predictions(run_dir)
        kept = replace(found, mistakes=mistakes, mistake_images=pixels.astype(np.uint8))
        write_predictions(run_dir, kept)
    return directory, vals


def test_intervals_and_classes_are_those_of_the_predictions(sweep):
    directory, vals = sweep
    findings = read_findings(directory, read_sweep(directory))
    assert sorted(findings.intervals) == [0, 1, 2]
    for number, val in enumerate(vals):
        low, high = findings.intervals[number]
        assert low < f1_of(val) < high
        share = f1_of(val)  # about that of a proportion
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.35)
    assert findings.num_images == 400
    expected = dict(enumerate(f1_of(vals[1], average=None)))
    assert {int(c.name[-1]): c.f1 for c in findings.classes} == pytest.approx(expected)
    assert all(c.low < c.f1 < c.high for c in findings.classes)
    assert sum(c.support for c in findings.classes) == 400
    assert findings.classes[0].f1 == min(c.f1 for c in findings.classes)


def test_the_answer_tells_what_to_expect_of_the_winner(sweep):
    directory, vals = sweep
    winner = corrected_winner(directory)
    page = write_report(directory).read_text(encoding="utf-8")
    head = page[page.index("<h1>") : page.index("<h2>")]
    assert f"On new images expect val/f1_macro {100 * winner.corrected:.1f} (95 %: " in head
    assert f"{100 * f1_of(vals[1]):.1f} is the best of 3 trials on the 400 images" in head
    assert head.index("#1 won") < head.index("On new images")


def test_the_answer_of_a_confirmation_comes_first(sweep):
    directory, _ = sweep
    lines = ["a beats the baseline by 1.2 points", "confirmed: a"]
    record = ConfirmationRecord(
        *(str(directory), str(directory / "again"), 3, 10, 0.05, "a", 1, [None, 1]), lines=lines
    )
    write_confirmation(record)
    page = write_report(directory).read_text(encoding="utf-8")
    head = page[page.index("<h1>") : page.index("<h2>")]
    places = [head.index(text) for text in ("A beats the baseline", "Confirmed: a.", "#1 won")]
    assert places == sorted(places)


def test_ranges_that_may_end_too_early_are_named(sweep):
    directory, _ = sweep
    write_ranges(directory, Ranges(("lr: <b> at the upper end",), "train 'lr=interval(0,\"2\")'"))
    page = write_report(directory).read_text(encoding="utf-8")
    assert "<p>lr: &lt;b&gt; at the upper end.</p>" in page
    assert "Widen: <code>train &#x27;lr=interval(0,&quot;2&quot;)&#x27;</code>" in page
    running = trial(4, "running", values=None, end=None)
    write_sweep(directory, [*(trial(n, values=(0.5,)) for n in range(3)), running], space={})
    assert "at the upper end" not in write_report(directory).read_text(encoding="utf-8")
    for text in ("{", "[]", '{"lines": 1, "command": null}', '{"lines": ["a"]}'):
        (directory / RANGES).write_text(text)
        assert read_ranges(directory) == Ranges()
    write_ranges(directory, Ranges())
    assert not (directory / RANGES).exists()


def test_a_sweep_that_runs_has_no_corrected_winner_yet(sweep):
    directory, vals = sweep
    going_on = [trial(n, values=(f1_of(val),)) for n, val in enumerate(vals)]
    running = trial(4, "running", values=None, end=None)
    write_sweep(directory, [*going_on, running], space={})
    findings = read_findings(directory, read_sweep(directory))
    assert findings.expected is None
    assert sorted(findings.intervals) == [0, 1, 2]


def test_the_worst_mistakes_are_the_winners_with_their_pictures(sweep):
    directory, vals = sweep
    findings = read_findings(directory, read_sweep(directory))
    kept = read_predictions(directory / "1")
    worst = worst_mistakes(vals[1].logits, vals[1].targets)
    assert [picture.id for picture in findings.mistakes] == vals[1].ids[worst].tolist()
    for picture, pixels in zip(findings.mistakes, kept.mistake_images, strict=True):
        assert (picture.image == pixels).all()
    first = findings.mistakes[0]
    row = worst[0]
    assert first.label == f"class_{vals[1].targets[row]}"
    assert first.seen == f"class_{vals[1].logits[row].argmax()}"
    assert first.confidence == pytest.approx(vals[1].probabilities()[row].max(), abs=1e-6)


def test_damaged_and_missing_predictions_leave_their_part_out(sweep):
    directory, _ = sweep
    (directory / "0" / PREDICTIONS).write_bytes(b"no archive")
    (directory / "2" / PREDICTIONS).unlink()
    assert list(read_findings(directory, read_sweep(directory)).intervals) == [1]
    (directory / "1" / PREDICTIONS).unlink()
    findings = read_findings(directory, read_sweep(directory))
    assert findings.intervals == {}
    assert findings.classes == []
    assert "Classes" not in sweep_page(read_sweep(directory), findings)


def test_without_cleanlab_one_line_says_how_to_get_it(sweep, monkeypatch):
    directory, _ = sweep
    monkeypatch.setattr("visionsweep.report.sweep.findings.has_cleanlab", lambda: False)
    page = write_report(directory).read_text(encoding="utf-8")
    assert "Suspected label errors need cleanlab: pip install" in page


def test_the_report_has_every_part(sweep):
    directory, _ = sweep
    (directory / "experiment").mkdir()
    command = "python train.py --config-dir multirun/faces experiment=best"
    (directory / "experiment/best.yaml").write_text(f"# @package _global_\n# {command}\na: 1\n")
    images = np.arange(2 * 2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 2, 3, 8, 8)
    copies = Copies(
        ids=np.array([["cat/1.png", "dog/9.png"], ["cat/2.png", "cat/7.png"]]),
        classes=np.array([["cat", "dog"], ["cat", "cat"]]),
        splits=np.array([["train", "train"], ["train", "val"]]),
        images=images,
        num_pairs=5,
    )
    write_copies(directory / "0", copies)
    page = write_report(directory).read_text(encoding="utf-8")
    assert f"Train it again: <code>{command}</code>" in page
    heads = re.findall(r"<h2>(.*?)</h2>", page)
    assert heads[0] == "Leaderboard"
    assert {"Classes", "Worst mistakes", "Copies with other labels or splits", "Failures"} <= set(
        heads
    )
    assert "loss is nan at epoch 2 &lt;b&gt;" in page
    assert "5 images identical to" in page
    assert "Shown: 2." in page
    pictures = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page)
    sizes = {Image.open(io.BytesIO(b64decode(text))).size for _, text in pictures}
    assert sizes == {(60, 40), (8, 8)}
    kind, text = pictures[-1]  # small ones keep every pixel
    assert kind == "png"
    decoded = np.array(Image.open(io.BytesIO(b64decode(text))))
    assert (decoded == images[1, 1].transpose(1, 2, 0)).all()
    assert re.search(r"<td[^>]*>0\.8\d\d to 0\.9\d\d</td>", page)


@pytest.mark.slow
def test_a_report_is_fit_for_a_phone(sweep):
    """Opened from disk at 390 pixels: no sideways scroll, nothing on the console."""
    pytest.importorskip("playwright", reason="needs playwright")
    from tests.browser.mlflow_ui import CHROMIUM, chromium

    if CHROMIUM is None:
        pytest.skip("needs chromium")
    path = write_report(sweep[0])
    console: list[str] = []

    def look() -> tuple[int, int]:
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 390, "height": 844})
            page.on("console", lambda message: console.append(message.text))
            page.on("pageerror", lambda error: console.append(str(error)))
            page.goto(path.as_uri())
            page.wait_for_function("() => document.documentElement.dataset.charts !== undefined")
            loaded = "[...document.images].filter(i => i.complete && i.naturalWidth > 0).length"
            return page.evaluate("document.documentElement.scrollWidth"), page.evaluate(loaded)

    # A thread of its own: Playwright is used once per thread, and other tests keep theirs open.
    with ThreadPoolExecutor(1) as executor:
        width, loaded = executor.submit(look).result()
    assert width == 390
    assert console == []
    assert loaded > MAX_PICTURES / 2
