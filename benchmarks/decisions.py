"""What ensembles and decisions are worth on a test set: `python benchmarks/decisions.py`.

Part `folds`: training sets from Fashion-MNIST with a long tail (49 to 1; which classes are rare
differs from seed to seed) and groups: 1 to 4 views of an object (shifted, turned, with noise). Each
is trained in five folds. Compared on the official test images, once with the class frequencies of
training and once with equal ones, in macro F1:
single     one fold's network (the mean over the five)
ensemble   the five networks, as `visionsweep ensemble` combines them
... each with `decisions=auto`, fitted to the out-of-fold predictions of all five, with the
`test_prior` of the test set; a single network also with what its own validation fold alone tells
... and the ensemble with `decisions=prior` and `offsets`, whether or not they help.

Part `sweeps`: 1,000 images, 200 of them for validation, 20 random configurations of the default
space; `visionsweep ensemble` against the best trial.

Everything is trained and combined as a user types it; the networks then predict the test images
within this process. Gains are paired within a seed; intervals are 95 % t intervals over the seeds.
Prints a table, then one JSON line.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image
from scipy import stats
from sklearn.metrics import f1_score
from sweep_apps.process import run_commands

from visionsweep.answer.decisions import Decisions, HeldOut, fit
from visionsweep.answer.stored_decisions import decide, parse_test_prior, shares
from visionsweep.data.fashion_mnist import load_fashion_mnist
from visionsweep.rundir.predictions import read_predictions
from visionsweep.training.predictor import load_predictors

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
FIXED = [
    *("data=csv", "data.label=label", "data.channels=1", "data.image_size=28"),
    *("data.cache_dir=none", "tracking=none", "trainer.threads=1"),
]
CLASSES, FOLDS, RATIO = 10, 5, 49
HEAD_OBJECTS = 294  # of the most frequent class; 6 of the rarest
HEAD_TEST = 1000  # test images of the most frequent class; 20 of the rarest
PRIORS = ("train", "uniform")


def tail(head: int) -> np.ndarray:
    """Return the (10,) counts of classes from `head` down to a 49th of it, geometrically."""
    return np.rint(head * RATIO ** -(np.arange(CLASSES) / (CLASSES - 1))).astype(int)


def view(pixels: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return another view of an object: shifted, turned, with noise."""
    turned = Image.fromarray(pixels).rotate(
        rng.uniform(-10, 10), Image.Resampling.BILINEAR, translate=tuple(rng.integers(-2, 3, 2))
    )
    noisy = np.asarray(turned) + rng.normal(0, 8, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


class Data:
    """Fashion-MNIST as training sets on disk and test images in memory."""

    def __init__(self, directory: Path) -> None:
        dataset = load_fashion_mnist()
        assert dataset.test is not None
        self._images = dataset.train.images[:, 0].numpy()
        self._targets = dataset.train.targets.numpy()
        self._directory = directory
        self.test_images = dataset.test.images
        self.test_targets = dataset.test.targets.numpy()

    def long_tailed(self, seed: int) -> tuple[Path, dict[str, np.ndarray]]:
        """Write a training set; return its table and the test rows for each prior."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(CLASSES)
        rows, like_train = [], []
        folder = self._directory / f"long_tailed_{seed}"
        folder.mkdir()
        for k, objects, tests in zip(order, tail(HEAD_OBJECTS), tail(HEAD_TEST), strict=True):
            for index in rng.choice(np.flatnonzero(self._targets == k), objects, replace=False):
                for number in range(rng.integers(1, 5)):
                    name = f"{index}_{number}.png"
                    view(self._images[index], rng).save(folder / name)
                    rows.append((name, k, index))
            of_class = np.flatnonzero(self.test_targets == k)
            like_train.append(rng.choice(of_class, tests, replace=False))
        table = self._write(folder, rows)
        everything = np.arange(len(self.test_targets))
        return table, {"train": np.concatenate(like_train), "uniform": everything}

    def balanced(self, seed: int, images: int) -> Path:
        """Write a training set with as many images of each class."""
        rng = np.random.default_rng(1000 + seed)
        folder = self._directory / f"balanced_{seed}"
        folder.mkdir()
        rows = []
        for k in range(CLASSES):
            of_class = np.flatnonzero(self._targets == k)
            for index in rng.choice(of_class, images // CLASSES, replace=False):
                Image.fromarray(self._images[index]).save(folder / f"{index}.png")
                rows.append((f"{index}.png", k, index))
        return self._write(folder, rows)

    @staticmethod
    def _write(folder: Path, rows: Sequence[tuple[str, int, int]]) -> Path:
        table = folder / "images.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "object"])
            writer.writerows(sorted(rows))
        return table


@torch.inference_mode()
def predict(run_dir: Path, images: torch.Tensor) -> np.ndarray:
    """Return the (N, K) probabilities of a run or an ensemble."""
    members = load_predictors(run_dir)
    parts = [
        sum(member.weight * member.predictor(part).double() for member in members)
        for part in images.split(500)
    ]
    return torch.cat(parts).numpy()


def macro_f1(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the macro F1 of the most probable classes."""
    preds = probabilities.argmax(axis=1)
    return float(f1_score(targets, preds, average="macro", labels=range(CLASSES), zero_division=0))


def held_out(run_dir: Path) -> HeldOut:
    """Return what a run or an ensemble predicted for its validation images."""
    val = read_predictions(run_dir).val
    return HeldOut(val.probabilities(), val.targets, val.groups)


def folds(data: Data, seed: int, directory: Path, epochs: int) -> dict[str, float]:
    """Return the macro F1 of every way to predict, for one training set."""
    table, test_rows = data.long_tailed(seed)
    study = directory / "multirun" / f"folds_{seed}"
    common = [*FIXED, f"data.path={table}", "data.group=object", f"trainer.epochs={epochs}"]
    all_folds = f"split.fold={','.join(map(str, range(FOLDS)))}"
    command = [str(TRAIN), "--multirun", "hydra/sweeper=basic", f"study={study.name}"]
    command += [f"seed={seed}", all_folds, "hydra.launcher.n_jobs=1", *common]
    run_commands([command], directory)
    out = directory / "outputs" / f"folds_{seed}"
    combine = ["-m", "visionsweep", "ensemble", str(study), f"out={out}", "method=uniform"]
    run_commands([combine], directory)
    singles = [predict(study / str(fold), data.test_images) for fold in range(FOLDS)]
    together = predict(out, data.test_images)
    scores: dict[str, list[float]] = {}
    for prior, rows in test_rows.items():
        targets, test_prior = data.test_targets[rows], parse_test_prior(prior)

        add = partial(_add, scores, prior, targets, rows)
        out_of_fold = held_out(out)
        auto, _ = decide("auto", out_of_fold, test_prior)
        found = None if auto is None else auto.decisions
        scores[f"{prior} applied"] = [float(found is not None)]
        add("ensemble", together)
        add("ensemble auto", together, found)
        shares_of_test = shares(test_prior, CLASSES)
        for method in ("offsets",) if shares_of_test is None else ("prior", "offsets"):
            add(f"ensemble {method}", together, fit(method, out_of_fold, shares_of_test))
        for fold, single in enumerate(singles):
            add("single", single)
            add("single auto", single, found)
            own, _ = decide("auto", held_out(study / str(fold)), test_prior)
            add("single own", single, None if own is None else own.decisions)
            scores.setdefault(f"{prior} applied own", []).append(float(own is not None))
    row = {key: float(np.mean(values)) for key, values in scores.items()}
    print(json.dumps({"seed": seed, **row}), flush=True)
    return row


def _add(
    scores: dict[str, list[float]],
    prior: str,
    targets: np.ndarray,
    rows: np.ndarray,
    way: str,
    probabilities: np.ndarray,
    found: Decisions | None = None,
) -> None:
    decided = probabilities[rows] if found is None else found.apply(probabilities[rows])
    scores.setdefault(f"{prior} {way}", []).append(macro_f1(decided, targets))


def sweep(data: Data, seed: int, directory: Path, epochs: int, trials: int) -> dict[str, float]:
    """Return the test macro F1 of a sweep's best trial and of its ensembles."""
    table, name = data.balanced(seed, 1000), f"sweep_{seed}"
    command = [str(TRAIN), "--multirun", f"study={name}", *FIXED, f"data.path={table}"]
    command += ["hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none"]
    command += [f"hydra.sweeper.sampler.seed={seed}", f"hydra.sweeper.n_trials={trials}"]
    command += [f"hydra.sweeper.keep_checkpoints={trials}", f"trainer.epochs={epochs}"]
    run_commands([command], directory)
    study = directory / "multirun" / name
    ways = {"greedy": [], "greedy f1": ["metric=f1_macro"], "weights": ["method=weights"]}
    ways["uniform"] = ["method=uniform"]
    scores = {"best": macro_f1(predict(study / "best", data.test_images), data.test_targets)}
    for way, arguments in ways.items():
        out = directory / "outputs" / f"{name} {way}"
        command = ["-m", "visionsweep", "ensemble", str(study), f"out={out}", *arguments]
        run_commands([command], directory)
        scores[way] = macro_f1(predict(out, data.test_images), data.test_targets)
    print(json.dumps({"sweep": seed, **scores}), flush=True)
    return scores


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % t interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return mean, mean - half, mean + half


def compare(rows: Sequence[dict[str, float]], pairs: dict[str, tuple[str, str]]) -> dict[str, list]:
    """Print and return the paired gains of ``(way, baseline)`` by their names."""
    found = {}
    for name, (way, baseline) in pairs.items():
        gain = interval([row[way] - row[baseline] for row in rows])
        found[name] = [round(value, 4) for value in gain]
        base = np.mean([row[baseline] for row in rows])
        print(f"{name:<52} {gain[0]:+.4f} [{gain[1]:+.4f}, {gain[2]:+.4f}]  over {base:.4f}")
    return found


def fold_pairs() -> dict[str, tuple[str, str]]:
    """Return the comparisons of the part `folds`."""
    pairs = {}
    for prior in PRIORS:
        test = "test like training" if prior == "train" else "test uniform"
        single, ensemble = f"{prior} single", f"{prior} ensemble"
        pairs[f"{test}: ensemble of 5 folds"] = (ensemble, single)
        pairs[f"{test}: decisions=auto"] = (f"{single} auto", single)
        pairs[f"{test}: both"] = (f"{ensemble} auto", single)
        pairs[f"{test}: decisions=auto, on the ensemble"] = (f"{ensemble} auto", ensemble)
        pairs[f"{test}: decisions=auto, from one fold"] = (f"{single} own", single)
        for method in ("prior", "offsets") if prior == "uniform" else ("offsets",):
            name = f"{test}: decisions={method}, on the ensemble"
            pairs[name] = (f"{ensemble} {method}", ensemble)
    return pairs


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="training sets of the part folds")
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--trials", type=int, default=20, help="of a sweep")
    parser.add_argument("--epochs", type=int, default=15, help="of each fold")
    parser.add_argument("--sweep-epochs", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    result: dict[str, object] = {"machine": machine(), "arguments": vars(arguments)}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        data = Data(directory)
        rows = [folds(data, s, directory, arguments.epochs) for s in range(arguments.seeds)]
        if rows:
            print(f"{len(rows)} long-tailed training sets, macro F1 of the test")
            result["folds"] = compare(rows, fold_pairs())
            applied = [key for key in rows[0] if "applied" in key]
            result["applied"] = {key: float(np.mean([row[key] for row in rows])) for key in applied}
            print(f"decisions=auto applied them in this share of cases: {result['applied']}")
        sweeps = [
            sweep(data, s, directory, arguments.sweep_epochs, arguments.trials)
            for s in range(arguments.sweeps)
        ]
        if sweeps:
            print(f"{len(sweeps)} sweeps of {arguments.trials} trials, macro F1 of the test")
            pairs = {
                f"{way} over the best trial": (way, "best") for way in sweeps[0] if way != "best"
            }
            result["sweeps"] = compare(sweeps, pairs)
    result["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
