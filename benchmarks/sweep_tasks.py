"""The tasks on which searches are compared: data, network, space and length of a trial."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from visionsweep.data.fashion_mnist import load_fashion_mnist

EPOCHS = 27

SPACE = [
    "optim=sgd,adamw",
    "optim.lr=tag(log,interval(1e-4,1.0))",
    "optim.weight_decay=tag(log,interval(1e-5,1.0))",
    "loss=cross_entropy,label_smoothing,focal,f1",
    "model.hidden=16,64,256",
    "model.drop_rate=interval(0.0,0.9)",
    "trainer.batch_size=16,64,256",
    "trainer.accumulate=1,4",
]

# What every trial has in common, whatever its data and its length.
TRAINING = [
    "model.widths=[8,16,32]",
    # Constant lr, so that an early epoch's F1 does not depend on the number of epochs.
    "scheduler=none",
    "trainer.eval_batch_size=250",
    "trainer.threads=1",
    "tracking=none",
]


@dataclass(frozen=True)
class Task:
    """What every trial of a search has in common, and what it draws."""

    name: str
    fixed: list[str]
    space: list[str]


def make_task(name: str, directory: Path, clothing: Path | None = None) -> Task:
    """Write the data of a task to a new folder in `directory`, and return the task.

    fashion   1,000 + 2,000 images of Fashion-MNIST
    longtail  Fashion-MNIST, its classes from 490 down to 10 images, and 2,000 balanced ones to
              validate on
    clothing  photographs at 48 pixels; `clothing` is their folder
    """
    if name == "fashion":
        counts = [100] * 10
        data = _fashion_overrides(write_fashion(directory / name, counts))
    elif name == "longtail":
        counts = [round(490 * (10 / 490) ** (k / 9)) for k in range(10)]
        data = _fashion_overrides(write_fashion(directory / name, counts))
    elif name == "clothing":
        assert clothing is not None
        cache = directory / "cache"
        data = ["data=image_folder", f"data.root={clothing}", "data.image_size=48"]
        data.append(f"data.cache_dir={cache}")
    else:
        raise ValueError(name)
    fixed = [*data, *TRAINING, f"trainer.epochs={EPOCHS}"]
    return Task(name, fixed, SPACE)


def write_fashion(folder: Path, train_counts: list[int], val_count: int = 200) -> Path:
    """Write images of Fashion-MNIST as PNG files; return the CSV file that lists them.

    ``train_counts`` and ``val_count``: images per class. They are chosen with a fixed seed.
    """
    dataset = load_fashion_mnist()
    targets = dataset.train.targets.numpy()
    order = np.random.default_rng(0).permutation(len(targets))
    folder.mkdir(parents=True)
    table = folder / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for k, count in enumerate(train_counts):
            rows = order[targets[order] == k][: count + val_count]
            for number, row in enumerate(rows.tolist()):
                Image.fromarray(dataset.train.images[row][0].numpy()).save(folder / f"{row}.png")
                writer.writerow([f"{row}.png", k, "train" if number < count else "validation"])
    return table


def _fashion_overrides(table: Path) -> list[str]:
    return [
        "data=csv",
        f"data.path={table}",
        "data.label=label",
        "data.split_column=split",
        "data.channels=1",
        "data.image_size=28",
        "data.cache_dir=none",
    ]
