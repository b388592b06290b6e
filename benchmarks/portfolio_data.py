"""Small data sets from which `learn_portfolio.py` learns: shipped with libraries, or drawn here.

Each has 800 training and 600 validation images of 20 to 28 pixels, and is neither trivial nor
impossible for a small network: good configurations end between F1 0.6 and 0.97.
"""

import csv
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from sweep_tasks import write_fashion

NUM_TRAIN, NUM_VAL = 800, 600
SIDE = 24
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif"),
    *("DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol"),
    *("STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10"),
)
LETTERS = "ABCDEFGHKLMNPRSTUVXZ"

# (generator, class) -> a uint8 image: (H, W) is grey, (H, W, 3) is RGB
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class DataSet:
    """Images in files, and from which source they come: one source is held out as a whole."""

    name: str
    source: str
    overrides: list[str]


def write_data_sets(directory: Path) -> list[DataSet]:
    """Write the data sets to new folders in `directory`; return them."""
    longtail = [round(490 * (10 / 490) ** (k / 9)) for k in range(10)]
    fashion = write_fashion(directory / "fashion", [100] * 10, val_count=60)
    tail = write_fashion(directory / "longtail", longtail, val_count=60)
    drawn: list[tuple[str, str, Draw, int, float, bool]] = [  # ..., noisy labels, mirror
        ("digits", "digits", _draw_digit, 10, 0.0, False),
        ("letters", "letters", _draw_letter, len(LETTERS), 0.0, False),
        ("shapes", "shapes", _draw_shape, 6, 0.0, True),
        ("textures", "textures", _draw_texture, 8, 0.0, True),
        ("dots", "dots", _draw_dots, 6, 0.0, True),
        ("noisy_labels", "shapes", _draw_shape, 6, 0.25, True),
    ]
    found = [
        DataSet("fashion", "fashion", _overrides(fashion, 28, 1, flips=True)),
        DataSet("longtail", "fashion", _overrides(tail, 28, 1, flips=True)),
    ]
    for seed, (name, source, draw, num_classes, noise, flips) in enumerate(drawn):
        table, image = _write(directory / name, draw, num_classes, noise, seed)
        channels = 3 if image.ndim == 3 else 1
        found.append(DataSet(name, source, _overrides(table, len(image), channels, flips=flips)))
    return found


def _write(
    folder: Path, draw: Draw, num_classes: int, noise: float, seed: int
) -> tuple[Path, np.ndarray]:
    """Write images; ``noise`` is the share of training labels that are drawn anew."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    table = folder / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for number in range(NUM_TRAIN + NUM_VAL):
            label = number % num_classes
            image = draw(rng, label)
            Image.fromarray(image).save(folder / f"{number}.png")
            is_train = number < NUM_TRAIN
            if is_train and rng.random() < noise:
                label = int(rng.integers(num_classes))
            writer.writerow([f"{number}.png", label, "train" if is_train else "validation"])
    return table, image


def _overrides(table: Path, size: int, channels: int, *, flips: bool) -> list[str]:
    return [
        *("data=csv", f"data.path={table}", "data.label=label", "data.split_column=split"),
        *(f"data.channels={channels}", f"data.image_size={size}", f"data.flips={flips}"),
        "data.cache_dir=none",
    ]


def _noisy(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    noise = rng.normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@functools.cache
def _digits() -> Any:
    return load_digits()


def _draw_digit(rng: np.random.Generator, label: int) -> np.ndarray:
    """A digit of scikit-learn's, shifted, with strokes of others in the corners, and noise."""
    digits = _digits()
    row, other = (rng.choice(np.flatnonzero(digits.target == k)) for k in (label, rng.integers(10)))
    canvas = np.zeros((20, 20))
    left, top = rng.integers(0, 5, 2)
    canvas[top : top + 16, left : left + 16] = np.kron(digits.images[row], np.ones((2, 2)))
    piece = digits.images[other][:5, :5]
    y, x = rng.choice((0, 15), 2)
    canvas[y : y + 5, x : x + 5] = np.maximum(canvas[y : y + 5, x : x + 5], piece)
    return _noisy(canvas * 15, rng, 70)


def _draw_letter(rng: np.random.Generator, label: int) -> np.ndarray:
    """A letter in one of the fonts that matplotlib ships, turned, shifted, with noise."""
    font = Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{rng.choice(FONTS)}.ttf"
    big = Image.new("L", (96, 96), int(rng.integers(0, 90)))
    ImageDraw.Draw(big).text(
        tuple(48 + rng.integers(-10, 11, 2)),
        LETTERS[label],
        fill=int(rng.integers(150, 256)),
        font=ImageFont.truetype(str(font), int(rng.integers(48, 80))),
        anchor="mm",
    )
    turned = big.rotate(
        rng.uniform(-25, 25), Image.Resampling.BILINEAR, fillcolor=big.getpixel((0, 0))
    )
    small = turned.resize((SIDE, SIDE), Image.Resampling.BOX)
    return _noisy(np.asarray(small, dtype=float), rng, 22)


def _draw_shape(rng: np.random.Generator, label: int) -> np.ndarray:
    """A filled polygon, star, ellipse or ring in colour, over lines of other colours."""
    big = Image.new("RGB", (96, 96), tuple(rng.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(big)
    for _ in range(2):
        color = tuple(rng.integers(0, 256, 3).tolist())
        pen.line(rng.integers(0, 96, 4).tolist(), fill=color, width=int(rng.integers(3, 9)))
    back = np.array(big.getpixel((0, 0)))
    color = tuple(((back + rng.integers(90, 167, 3)) % 256).tolist())
    center, radius = rng.uniform(42, 54, 2), rng.uniform(24, 36)
    turn = rng.uniform(0, 2 * math.pi)
    corners, inner = ((3, 1), (4, 1), (5, 1), (5, 0.45), (24, 1), (24, 1))[label]
    radii = radius * np.resize([1.0, inner], 2 * corners)
    if inner == 1:
        radii = np.full(corners, radius)
    angles = turn + np.arange(len(radii)) * 2 * math.pi / len(radii)
    points = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    outline = [tuple(point) for point in points.tolist()]
    if label == 5:  # a ring
        pen.line([*outline, outline[0], outline[1]], fill=color, width=12)
    else:
        pen.polygon(outline, fill=color)
    small = big.resize((SIDE, SIDE), Image.Resampling.BOX)
    return _noisy(np.asarray(small, dtype=float), rng, 10)


def _draw_texture(rng: np.random.Generator, label: int) -> np.ndarray:
    """Noise of one of four spectra; or gratings, plaids, blobs or rings, in noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    if label < 4:
        return _rescaled(_spectral(rng, (0.0, 0.7, 1.4, 2.1)[label]), rng)
    frequency, angle = rng.uniform(0.5, 1.1), rng.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    phases = rng.uniform(0, 2 * math.pi, 2)
    waves = np.cos(frequency * along + phases[0]), np.cos(frequency * across + phases[1])
    if label == 4:
        pattern = waves[0]
    elif label == 5:
        pattern = (waves[0] + waves[1]) / math.sqrt(2)
    elif label == 6:
        pattern = 2 * np.maximum(waves[0], waves[1]) - 1
    else:
        radius = np.hypot(x - rng.uniform(0, SIDE), y - rng.uniform(0, SIDE))
        pattern = np.cos(frequency * radius + phases[0])
    return _rescaled(pattern / pattern.std() + 0.8 * _spectral(rng, 0.7), rng)


def _spectral(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Return noise with a spectrum of 1 / f^exponent, standardized."""
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    frequencies[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / frequencies**exponent
    noise = np.fft.ifft2(spectrum).real
    return np.asarray(noise / noise.std())


def _rescaled(pattern: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    contrast = rng.uniform(20, 50) / pattern.std()
    return np.clip(rng.uniform(90, 160) + contrast * pattern, 0, 255).astype(np.uint8)


def _draw_dots(rng: np.random.Generator, label: int) -> np.ndarray:
    """One to six filled dots, among rings that do not count."""
    big = Image.new("L", (96, 96), 40)
    pen = ImageDraw.Draw(big)
    places: list[np.ndarray] = []
    num_rings = int(rng.integers(0, 4))
    while len(places) < label + 1 + num_rings:
        place = rng.uniform(9, 87, 2)
        if all(np.hypot(*(place - other)) > 18 for other in places):
            places.append(place)
    for number, (x, y) in enumerate(places):
        radius = rng.uniform(5, 8)
        box = [x - radius, y - radius, x + radius, y + radius]
        if number <= label:
            pen.ellipse(box, fill=int(rng.integers(120, 230)))
        else:
            pen.ellipse(box, outline=int(rng.integers(150, 256)), width=2)
    small = big.resize((SIDE, SIDE), Image.Resampling.BOX)
    return _noisy(np.asarray(small, dtype=float), rng, 18)
