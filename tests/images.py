"""Generated image folders and CSV files: small, coloured by class, the same everywhere."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "fox")


def make_image(class_index: int, number: int, size: int = 12) -> Image.Image:
    """Return a noisy RGB image whose bright channel is its class."""
    pixels = np.random.default_rng([class_index, number]).integers(
        0, 120, (size, size, 3), dtype=np.uint8
    )
    pixels[..., class_index % 3] += 100
    return Image.fromarray(pixels)


def make_folder(root: Path, per_class: int = 12) -> Path:
    """Write ``root/CLASS/NN.png`` and return `root`."""
    for index, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            make_image(index, number).save(root / name / f"{number:02d}.png")
    return root


def make_csv(root: Path, per_class: int = 12, people: int = 9) -> Path:
    """Write images and ``root/train.csv`` with columns path, class, person; return its path."""
    folder = make_folder(root / "images", per_class)
    rows = []
    for index, name in enumerate(CLASSES):
        for number in range(per_class):
            image = (folder / name / f"{number:02d}.png").relative_to(root)
            person = f"p{(index * per_class + number) % people}"
            rows.append({"path": str(image), "class": name, "person": person})
    path = root / "train.csv"
    write_rows(path, rows)
    return path


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
