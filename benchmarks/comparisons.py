"""How far `visionsweep compare` and the corrected winner of a sweep can be trusted.

    python benchmarks/comparisons.py coverage FOLDER    intervals of differences that are known
    python benchmarks/comparisons.py winner FOLDER      winners of sweeps on a large test set

What is trained lies in FOLDER and is used again. `coverage` trains two configurations with many
seeds on digits and on a subset of Fashion-MNIST, and predicts a large test set with each run: seeds
and images are then a population whose difference is known exactly. A simulated comparison draws a
few seeds and some hundred images of it and asks for the interval. Two draws from one configuration
have no difference; two configurations have a known one. `winner` runs sweeps, each on another
subset of Fashion-MNIST, and evaluates their winners on 20,000 training images that the subset left
out, and on the 10,000 test images.
"""

import argparse
import csv
import gzip
import logging
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray

from visionsweep.answer.compare import LEVEL, Difference
from visionsweep.answer.groups import Replicate
from visionsweep.answer.interval import Estimate

ROOT = Path(__file__).resolve().parent.parent

SMALL = ["tracking=none", "trainer.threads=1", "model.widths=[8,16]", "model.hidden=32"]
# two configurations per data set: far apart on digits, nearly equal on Fashion-MNIST
CONFIGURATIONS = {
    "digits": (["trainer.epochs=5"], ["trainer.epochs=5", "optim.lr=0.0015"]),
    "fashion": (["trainer.epochs=5"], ["trainer.epochs=5", "loss=focal", "optim.lr=0.002"]),
}
NUM_TRAIN = 1000
NUM_LEFT_OUT = 20_000


# ---- data -------------------------------------------------------------------------------------


def write_digits(folder: Path) -> list[str]:
    """Write half of the digits for training, half as test split; return the overrides."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.clip(digits.images * 16, 0, 255).astype(np.uint8)
    is_test = np.random.default_rng(0).permutation(len(images)) < len(images) // 2
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    for name, chosen in (("train.csv", ~is_test), ("test.csv", is_test)):
        with (folder / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "label"])
            numbers = np.flatnonzero(chosen).tolist()
            writer.writerows([f"{i:04d}.png", digits.target[i]] for i in numbers)
    return [
        *("data=csv", f"data.path={folder}/train.csv", f"data.test_path={folder}/test.csv"),
        *("data.label=label", "data.flips=false", "data.image_size=8", "data.channels=1"),
    ]


def write_fashion(folder: Path, seed: int) -> list[str]:
    """Write a subset of Fashion-MNIST with the whole test split; return the overrides."""
    from visionsweep.data.fashion_mnist import FILES, load_fashion_mnist

    if (folder / f"{FILES[-1]}.gz").exists():
        return ["data=fashion_mnist", f"data.root={folder}"]
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_fashion_mnist()
    assert dataset.test is not None
    chosen = np.random.default_rng(seed).permutation(len(dataset.train))[:NUM_TRAIN]
    images, targets = dataset.train.images.numpy()[chosen], dataset.train.targets.numpy()[chosen]
    test = dataset.test.images.numpy(), dataset.test.targets.numpy()
    for name, array in zip(FILES, (images, targets, *test), strict=True):
        array = np.squeeze(array).astype(np.uint8)
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        with gzip.open(folder / f"{name}.gz", "wb", compresslevel=1) as stream:
            stream.write(header + array.tobytes())
    return ["data=fashion_mnist", f"data.root={folder}"]


# ---- the pools of predictions -----------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Two configurations, R seeds each, on the same M test images."""

    targets: NDArray[np.int64]  # (M,)
    preds: NDArray[np.int64]  # (2, R, M)
    num_classes: int


def train_pool(folder: Path, name: str, num_seeds: int) -> Pool:
    """Train what is missing, in this process, and return the predictions of the test images."""
    import hydra

    from visionsweep.run import run
    from visionsweep.rundir.predictions import read_predictions
    from visionsweep.rundir.result import read_result

    data = folder / f"data-{name}"
    write = write_digits if name == "digits" else lambda path: write_fashion(path, seed=0)
    overrides = write(data)
    os.chdir(folder)
    places = [
        [f"{name}-{side}-{seed}" for seed in range(num_seeds)]
        for side in range(len(CONFIGURATIONS[name]))
    ]
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        for side, row in enumerate(places):
            for seed, place in enumerate(row):
                ended = read_result(folder / "outputs" / place)
                if ended is None or ended["state"] != "finished":
                    given = [*SMALL, *overrides, *CONFIGURATIONS[name][side]]
                    run(hydra.compose("config", [*given, f"name={place}", f"seed={seed}"]))
    found = [[read_predictions(folder / "outputs" / place).test for place in row] for row in places]
    return Pool(
        targets=found[0][0].targets,
        preds=np.array([[test.logits.argmax(axis=1) for test in row] for row in found]),
        num_classes=found[0][0].logits.shape[1],
    )


# ---- simulated comparisons --------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """How a simulated comparison draws: seeds, validation images, one set of them or one each."""

    num_seeds: int
    num_images: int
    own_images: bool  # each seed validates on images of its own, as the splits of a run's seed do

    def __str__(self) -> str:
        kind = "own" if self.own_images else "shared"
        return f"{self.num_seeds:2d} seeds, {self.num_images:4d} images ({kind})"


CASES = [
    *(Case(seeds, images, False) for seeds in (2, 3, 5, 10) for images in (200, 1000)),
    *(Case(seeds, 200, True) for seeds in (3, 5, 10)),
]


def draw(pool: Pool, case: Case, differs: bool, rng: np.random.Generator) -> list[list[Replicate]]:
    """Return S pairs of runs, as seen by their validation images, and the true difference."""
    num_runs = pool.preds.shape[1]
    seeds = rng.integers(num_runs, size=(2, case.num_seeds))
    if differs:  # the same seed for both sides
        first, second = pool.preds[0][seeds[0]], pool.preds[1][seeds[0]]
    else:
        first, second = pool.preds[0][seeds]
    drawn = rng.integers(len(pool.targets), size=5 * case.num_images)
    pairs = []
    for a, b in zip(first, second, strict=True):
        size = case.num_images
        rows = rng.permutation(5 * size)[:size] if case.own_images else np.arange(size)
        pairs.append([replicate(side[drawn[rows]], pool, drawn[rows], rows) for side in (a, b)])
    return pairs


def replicate(
    preds: NDArray[np.int64], pool: Pool, images: NDArray[np.int64], rows: NDArray[np.int64]
) -> Replicate:
    """Return a run that validated on some images; an image drawn twice is two images."""
    names = tuple(map(str, range(pool.num_classes)))
    ids = np.array([f"draw{row}" for row in rows.tolist()])
    return Replicate((), names, ids, pool.targets[images], preds, None)


def true_difference(pool: Pool, metric: str, differs: bool) -> float:
    """Return the difference of the means over all seeds, on all images."""
    from visionsweep.answer.metrics import count, score

    if not differs:
        return 0.0
    ones = np.ones((1, len(pool.targets)))
    means = []
    for side in pool.preds:
        counts = [count(preds, pool.targets, pool.num_classes, ones) for preds in side]
        means.append(np.mean([score(metric, c, "zero")[0] for c in counts]))
    return float(means[0] - means[1])


# ---- winners of sweeps ------------------------------------------------------------------------


def run_sweep(folder: Path, number: int, num_trials: int) -> Path:
    """Train the missing trials of a random search on a subset of its own; return their folder."""
    import hydra

    from visionsweep.run import run
    from visionsweep.rundir.result import read_result

    place = folder / f"sweep-{number}"
    data = write_fashion(place / "data", seed=1000 + number)
    os.chdir(place)
    rng = np.random.default_rng(number)
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        for trial in range(num_trials):
            drawn = [
                f"loss={rng.choice(['cross_entropy', 'focal', 'poly'])}",
                f"optim.lr={np.exp(rng.uniform(np.log(1e-3), np.log(1e-2))):.5f}",
                f"optim.weight_decay={np.exp(rng.uniform(np.log(1e-3), np.log(0.3))):.5f}",
                f"trainer.batch_size={rng.choice([16, 32, 64])}",
            ]
            ended = read_result(place / "outputs" / str(trial))
            if ended is None or ended["state"] != "finished":
                fixed = [*SMALL, *data, "trainer.epochs=6", f"name={trial}", f"seed={number}"]
                run(hydra.compose("config", [*fixed, *drawn]))
    return place / "outputs"


# ---- the tables -------------------------------------------------------------------------------


def coverage(folder: Path, num_seeds: int, comparisons: int) -> None:
    """Print how often the interval holds the known difference, and how often "better" is wrong."""
    print(
        f"{'data':8} {'true difference':>15} {'comparisons':>11} {'holds':>7} {'better':>7} wrong"
    )
    for name in CONFIGURATIONS:
        pool = train_pool(folder, name, num_seeds)
        for differs in (False, True):
            truth = true_difference(pool, "f1_macro", differs)
            found = [ask(pool, number, differs) for number in range(comparisons)]
            holds = np.mean([e.interval()[0] <= truth <= e.interval()[1] for e in found])
            # without a difference every verdict is wrong; with one, that of the other sign
            better = [difference(e).verdict == "different" for e in found]
            wrong = [
                is_better and (not differs or (e.value > 0) != (truth > 0))
                for is_better, e in zip(better, found, strict=True)
            ]
            print(
                f"{name:8} {truth:15.4f} {comparisons:11} {holds:7.1%} {np.mean(better):7.1%} "
                f"{np.mean(wrong):5.1%}"
            )


def difference(estimate: Estimate) -> Difference:
    """Return the only difference of a comparison."""
    return Difference("first", "second", estimate, LEVEL, estimate.num_seeds, 0, 0.0)


def ask(pool: Pool, number: int, differs: bool) -> Estimate:
    """Return the difference that `visionsweep compare` gives for a simulated comparison."""
    from visionsweep.answer.bootstrap import exact_scores, resampled_scores, units_of
    from visionsweep.answer.interval import estimate_mean

    rng = np.random.default_rng([number, differs])
    pairs = draw(pool, CASES[number % len(CASES)], differs, rng)
    runs = [run for pair in pairs for run in pair]
    exact = exact_scores(runs, "f1_macro", "zero")
    resampled = resampled_scores(runs, units_of(runs), "f1_macro", "zero", seed=number)
    values, rows = exact[0::2] - exact[1::2], resampled[:, 0::2] - resampled[:, 1::2]
    return estimate_mean(values, rows)


def winner(folder: Path, num_sweeps: int, num_trials: int) -> None:
    """Print how far the winner's value, raw and corrected, is from that on images it never saw."""
    from visionsweep.answer.selection import corrected_winner

    errors, inside = [], []
    for number in range(num_sweeps):
        found = corrected_winner(run_sweep(folder, number, num_trials))
        assert found is not None
        truths = np.array([left_out_f1(found.trial, 1000 + number), test_f1(found.trial)])
        errors.append(np.stack([found.raw - truths, found.corrected - truths]))
        low, high = found.interval
        inside.append((low <= truths) & (truths <= high))
    table = np.stack(errors)  # (sweeps, value, truth)
    half = 1.96 * table.std(axis=0, ddof=1) / np.sqrt(num_sweeps)
    rms = np.sqrt((table**2).mean(axis=0))
    print(f"{num_sweeps} sweeps of {num_trials} trials, {found.num_images} validation images")
    print(f"{'value':10} {'mean error':>10} {'+- (95 %)':>9} {'rms error':>9}  against")
    for column, truth in enumerate((f"{NUM_LEFT_OUT:,} left-out training images", "test split")):
        for row, name in enumerate(("raw best", "corrected")):
            mean = table[:, row, column].mean()
            figures = f"{mean:10.4f} {half[row, column]:9.4f} {rms[row, column]:9.4f}"
            print(f"{name:10} {figures}  {truth}")
        print(f"the interval holds the value on it in {np.mean(inside, axis=0)[column]:.0%}")


def test_f1(run_dir: Path) -> float:
    """Return a run's macro F1 on the test split."""
    from visionsweep.rundir.predictions import read_predictions

    test = read_predictions(run_dir).test
    assert test is not None
    return macro_f1(test.targets, test.logits.argmax(axis=1))


def left_out_f1(run_dir: Path, seed: int) -> float:
    """Return a run's macro F1 on training images that its subset (`write_fashion`) left out.

    They come from where its validation images do, which the test split does not quite.
    """
    import torch

    from visionsweep.data.fashion_mnist import load_fashion_mnist
    from visionsweep.training.predictor import load_predictors

    train = load_fashion_mnist().train
    order = np.random.default_rng(seed).permutation(len(train))
    rows = torch.from_numpy(order[NUM_TRAIN : NUM_TRAIN + NUM_LEFT_OUT])
    (member,) = load_predictors(run_dir, "cpu")
    preds = [member.predictor(train.images[part]).argmax(dim=1) for part in rows.split(2000)]
    return macro_f1(train.targets[rows].numpy(), torch.cat(preds).numpy())


def macro_f1(targets: NDArray[np.int64], preds: NDArray[np.int64]) -> float:
    """Return scikit-learn's macro F1."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, preds, average="macro"))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("part", choices=("coverage", "winner"))
    parser.add_argument("folder", type=Path, help="what is trained is kept and used again there")
    parser.add_argument("--seeds", type=int, default=24, help="runs per configuration")
    parser.add_argument("--comparisons", type=int, default=200, help="per row of the table")
    parser.add_argument("--sweeps", type=int, default=30)
    parser.add_argument("--trials", type=int, default=10, help="per sweep")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    print(machine())
    logging.getLogger("visionsweep").addHandler(logging.NullHandler())  # not a line per epoch
    if arguments.part == "coverage":
        coverage(folder, arguments.seeds, arguments.comparisons)
    else:
        winner(folder, arguments.sweeps, arguments.trials)
    print(f"{time.perf_counter() - started:.0f} s")


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
