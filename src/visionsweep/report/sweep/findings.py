"""What the predictions of a sweep's runs tell: intervals, classes, mistakes, doubtful labels.

Reads files alone. Whatever is missing or damaged leaves its part out.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.answer.bootstrap import RESAMPLES, exact_scores, resampled_scores, units_of
from visionsweep.answer.groups import Replicate
from visionsweep.answer.interval import estimate_mean
from visionsweep.answer.metrics import METRICS, class_f1, count
from visionsweep.answer.predictions import FinishedRun, finished_runs, pooled
from visionsweep.answer.selection import corrected_winner
from visionsweep.answer.sentences import winner_sentence
from visionsweep.errors import DataError
from visionsweep.report.sweep.label_errors import INSTALL, has_cleanlab, suspected_labels
from visionsweep.report.sweep.record import SweepRecord, SweptTrial
from visionsweep.rundir.confirmation import read_confirmation
from visionsweep.rundir.copies import Copies, read_copies
from visionsweep.rundir.layout import PRESET, file_inside, run_directories
from visionsweep.rundir.predictions import Predictions, SplitPredictions, worst_mistakes
from visionsweep.rundir.ranges import Ranges, read_ranges

MAX_INTERVALS = 30  # trials
MAX_PICTURES = 24
_CHOICE = "--config-dir"  # of the line that has the command
_MAX_WEIGHTS = 20_000_000  # of the bootstrap of classes, in memory at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassScore:
    """The F1 of a class on the validation images of the winner, with a 95 % interval."""

    name: str
    f1: float
    low: float
    high: float
    support: int


@dataclass(frozen=True)
class Picture:
    """An image with its lines: what it is, and what the network sees."""

    image: NDArray[np.uint8] | None  # (C, H, W); None: no run kept its pixels
    label: str
    seen: str
    confidence: float  # in `seen`
    id: str


@dataclass(frozen=True)
class Findings:
    """What the page shows besides the table of trials and the charts."""

    confirmation: tuple[str, ...] = ()  # what it said, in sentences, if the sweep was confirmed
    expected: str | None = None  # what the winner is worth on new images, in a sentence
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)  # by trial
    num_images: int = 0  # validation images of the winner
    classes: list[ClassScore] = field(default_factory=list)  # the worst first
    mistakes: list[Picture] = field(default_factory=list)
    suspects: list[Picture] = field(default_factory=list)
    num_suspects: int = 0
    suspects_note: str = ""  # why there are none
    copies: Copies | None = None
    command: str | None = None  # trains the winner again
    ranges: Ranges = field(default_factory=Ranges)  # those that may end too early


def read_findings(sweep_dir: Path, record: SweepRecord) -> Findings:
    """Read what the best trials predicted. Takes the files of up to 30 trials."""
    ranked = [trial for trial in record.ranked() if trial.duplicate_of is None]
    found = {trial.number: _replicates(sweep_dir, trial) for trial in ranked[:MAX_INTERVALS]}
    found = {number: replicates for number, replicates in found.items() if replicates}
    known: dict[str, Any] = {
        "copies": next((c for run in run_directories(sweep_dir) if (c := read_copies(run))), None),
        "command": _command(sweep_dir),
        "ranges": Ranges() if "running" in record.counts() else read_ranges(sweep_dir),
    }
    confirmed = read_confirmation(sweep_dir)
    confirmation = () if confirmed is None else tuple(confirmed.lines)
    if not ranked or ranked[0].number not in found:
        return Findings(confirmation=confirmation, **known)
    pictures = {
        image: pixels
        for replicates in reversed(found.values())  # the winner's come last and win
        for replicate in replicates
        for image, pixels in replicate.pictures.items()
    }
    winner = found[ranked[0].number][0]
    suspects, note = _suspects(winner, pictures)
    return Findings(
        confirmation=confirmation,
        expected=_expected(sweep_dir, record, ranked[0]),
        intervals=_intervals(record, {n: [r.scored for r in rs] for n, rs in found.items()}),
        num_images=len(winner.val.ids),
        classes=_classes(winner.scored),
        mistakes=_mistakes(winner, pictures),
        suspects=suspects[:MAX_PICTURES],
        num_suspects=len(suspects),
        suspects_note=note,
        **known,
    )


@dataclass(frozen=True)
class _Seed:
    """A trial trained with one seed: its folds together, and the pictures that it kept."""

    scored: Replicate
    val: SplitPredictions
    pictures: dict[str, NDArray[np.uint8]]  # id -> (C, H, W)


def _replicates(sweep_dir: Path, trial: SweptTrial) -> list[_Seed]:
    try:
        runs = finished_runs([sweep_dir / str(trial.number)])
        by_seed: dict[int, list[FinishedRun]] = {}
        for run in runs:
            by_seed.setdefault(run.seed, []).append(run)
        return [_seed(members) for members in by_seed.values()]
    except DataError as error:
        log.info("trial %d: %s", trial.number, error)
        return []


def _seed(runs: Sequence[FinishedRun]) -> _Seed:
    parts = [run.predictions() for run in runs]
    val = parts[0].val if len(parts) == 1 else pooled([part.val for part in parts])
    scored = Replicate(
        tuple(runs),
        tuple(parts[0].class_names),
        val.ids,
        val.targets,
        val.logits.argmax(axis=1),
        val.groups,
    )
    return _Seed(scored, val, {k: v for part in parts for k, v in _pictures(part).items()})


def _pictures(predictions: Predictions) -> dict[str, NDArray[np.uint8]]:
    ids = predictions.val.ids[predictions.mistakes].tolist()
    return dict(zip(ids, predictions.mistake_images, strict=True))


def _expected(sweep_dir: Path, record: SweepRecord, best: SweptTrial) -> str | None:
    """Return the value of the winner without the luck of having been chosen; None if unknown.

    Only of a sweep that is over: the whole choice is repeated on resamples, which takes seconds.
    """
    if "running" in record.counts():
        return None
    try:
        winner = corrected_winner(sweep_dir)
    except DataError as error:
        log.info("the winner is not corrected: %s", error)
        return None
    if winner is None or winner.trial.resolve() != (sweep_dir / str(best.number)).resolve():
        return None
    return winner_sentence(winner)


def _intervals(
    record: SweepRecord, trials: dict[int, list[Replicate]]
) -> dict[int, tuple[float, float]]:
    """Return the 95 % interval of each trial's value: over images, and over seeds if several."""
    metric = record.metrics[0].removeprefix("val/")
    replicates = [replicate for members in trials.values() for replicate in members]
    if metric not in METRICS:
        return {}
    absent: Any = replicates[0].runs[0].config.get("metrics", {}).get("absent_classes", "zero")
    units = units_of(replicates)
    exact = exact_scores(replicates, metric, absent)
    resampled = resampled_scores(replicates, units, metric, absent)
    found, start = {}, 0
    for number, members in trials.items():
        columns = slice(start, start + len(members))
        low, high = estimate_mean(exact[columns], resampled[:, columns]).interval()
        found[number] = max(0.0, low), min(1.0, high)
        start += len(members)
    return found


def _classes(replicate: Replicate) -> list[ClassScore]:
    """Return each class's F1 with a percentile interval of the Bayesian bootstrap over images."""
    units = units_of([replicate])
    num_resamples = max(100, min(RESAMPLES, _MAX_WEIGHTS // max(1, len(replicate.ids))))
    rng = np.random.default_rng(0)
    weights = rng.standard_exponential((num_resamples, len(units.names)), dtype=np.float32)
    names, ones = replicate.class_names, np.ones((1, len(replicate.ids)))
    counts = count(replicate.preds, replicate.targets, len(names), ones)
    drawn = count(replicate.preds, replicate.targets, len(names), weights[:, units.of_run[0]])
    low, high = np.percentile(class_f1(drawn), [2.5, 97.5], axis=0)
    rows = zip(names, class_f1(counts)[0], low, high, counts.actual[0], strict=True)
    scores = [ClassScore(n, float(f), float(a), float(b), int(s)) for n, f, a, b, s in rows]
    return sorted(scores, key=lambda score: score.f1)


def _mistakes(winner: _Seed, pictures: dict[str, NDArray[np.uint8]]) -> list[Picture]:
    probabilities = winner.val.probabilities()
    worst = worst_mistakes(winner.val.logits, winner.val.targets, MAX_PICTURES)
    return [_picture(winner, i, int(probabilities[i].argmax()), pictures) for i in worst.tolist()]


def _suspects(winner: _Seed, pictures: dict[str, NDArray[np.uint8]]) -> tuple[list[Picture], str]:
    if not has_cleanlab():
        return [], f"Suspected label errors need cleanlab: {INSTALL}"
    probabilities = winner.val.probabilities()
    if not np.isfinite(probabilities).all():  # a network that diverged in its last evaluation
        return [], ""
    found = suspected_labels(winner.val.targets, probabilities)
    return [_picture(winner, one.index, one.suggested, pictures) for one in found], ""


def _picture(
    winner: _Seed, index: int, seen: int, pictures: dict[str, NDArray[np.uint8]]
) -> Picture:
    names, image = winner.scored.class_names, str(winner.val.ids[index])
    logits = winner.val.logits[index].astype(np.float64)
    shares = np.exp(logits - logits.max())
    confidence = float(shares[seen] / shares.sum())
    label = names[int(winner.val.targets[index])]
    return Picture(pictures.get(image), label, names[seen], confidence, image)


def _command(sweep_dir: Path) -> str | None:
    """Return the command in the head of the preset of the best trial."""
    path = file_inside(sweep_dir, PRESET)
    if path is None:
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ") and _CHOICE in line), None)
