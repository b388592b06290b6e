"""The contact sheet of a model's worst mistakes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import (
    DARK,
    DPI,
    GRAY,
    fitted,
    name_style,
    new_figure,
    save_png,
    shortened,
    text_width,
)

COLUMNS = 6
TILE = 160  # pixels, the box of an image
GAP = 16  # pixels between tiles
_MAX_MAGNIFIED = (
    64  # pixels; what is smaller is enlarged without blur, so that its pixels can be seen
)
_LINE = 17  # pixels, height of a line of a caption
_TITLE = 34  # pixels
_NAME_SIZE, _FILE_SIZE = 9.0, 7.5  # points
_ARROW = "\u2192"


def worst_mistakes(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], count: int = 24
) -> NDArray[np.int64]:
    """Return the indices of up to ``count`` wrong predictions, the most confident first; of equals the lower index.

    ``probabilities``: (N, K) in [0, 1], ``targets``: (N,) in [0, K). The prediction is the most probable class and
    its probability the confidence.
    """
    preds = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(preds != targets)
    order = np.argsort(-probabilities[wrong, preds[wrong]], kind="stable")
    worst: NDArray[np.int64] = wrong[order[:count]].astype(np.int64)
    return worst


def mistakes_png(
    images: NDArray[np.uint8],
    true_names: Sequence[str],
    predicted_names: Sequence[str],
    confidences: Sequence[float] | NDArray[np.floating],
    labels_of_files: Sequence[str],
    path: Path,
) -> None:
    """Write a contact sheet of mistakes, in the order given, each with "true -> predicted  0.98" and its file's name.

    ``images``: (M, C, H, W) uint8, gray (C = 1) or RGB (C = 3); the others have one value an image. Small images are
    enlarged by a whole factor without blur, large ones reduced. Without mistakes a small picture says so.
    Raises ValueError where the lengths or the number of channels do not fit.
    """
    lengths = {
        len(part) for part in (images, true_names, predicted_names, confidences, labels_of_files)
    }
    if len(lengths) != 1:
        raise ValueError(
            f"images, names, confidences and files of different lengths: {sorted(lengths)}"
        )
    if not len(images):
        figure = new_figure(3.6, 0.8)
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center", fontsize=12, color=DARK)
        save_png(figure, path)
        return
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images of shape {images.shape}, expected (M, 1 or 3, H, W)")
    captions = _captions(true_names, predicted_names, confidences, labels_of_files)
    num_lines = len(captions[0])
    columns = min(COLUMNS, len(images))
    tiles = [_tile(image) for image in images]
    tile_height = max(tile.shape[0] for tile in tiles)
    cell_height = tile_height + num_lines * _LINE + GAP
    width = max(columns * (TILE + GAP) + GAP, 3 * TILE)
    height = _TITLE + -(-len(images) // COLUMNS) * cell_height

    # Half a pixel more, since the number of pixels is rounded down.
    figure = new_figure((width + 0.5) / DPI, (height + 0.5) / DPI)
    title = f"{len(images)} most confident mistakes: target {_ARROW} prediction, confidence"
    figure.text(GAP / width, 1 - _TITLE / 2 / height, title, va="center", fontsize=11, color=DARK)
    pictures = []
    for index, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        top = _TITLE + index // COLUMNS * cell_height
        left = GAP + index % COLUMNS * (TILE + GAP)
        pictures.append((top, left + (TILE - tile.shape[1]) // 2, tile))
        for number, line in enumerate(lines):
            is_last = number == num_lines - 1
            style = name_style([line], _FILE_SIZE if is_last else _NAME_SIZE)
            y = top + tile_height + 4 + number * _LINE
            color = GRAY if is_last else DARK
            figure.text(
                (left + TILE / 2) / width,
                1 - y / height,
                line,
                ha="center",
                va="top",
                color=color,
                **style,
            )
    save_png(figure, path, pictures)


def _captions(
    true_names: Sequence[str],
    predicted_names: Sequence[str],
    confidences: Sequence[float] | NDArray[np.floating],
    labels_of_files: Sequence[str],
) -> list[list[str]]:
    """Return the lines of each caption, as many for each: two if the names fit into one line, else three."""
    width = (TILE + GAP - 10) / DPI
    names = [(shortened(a), shortened(b)) for a, b in zip(true_names, predicted_names, strict=True)]
    numbers = [f"{confidence:.2f}" for confidence in confidences]
    files = [label.rsplit("/", 1)[-1] for label in labels_of_files]
    whole = [f"{a} {_ARROW} {b}  {number}" for (a, b), number in zip(names, numbers, strict=True)]
    if text_width(whole, _NAME_SIZE) <= width:
        return [
            [line, fitted(file, _FILE_SIZE, width)] for line, file in zip(whole, files, strict=True)
        ]
    return [
        [
            fitted(true_name, _NAME_SIZE, width),
            fitted(f"{_ARROW} {predicted_name}", _NAME_SIZE, width),
            fitted(f"{number}  {file}", _FILE_SIZE, width),
        ]
        for true_name, predicted_name, number, file in zip(
            true_names, predicted_names, numbers, files, strict=True
        )
    ]


def _tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (C, H, W) as (h, w, 3) that fits into a tile, with a thin gray frame."""
    from PIL import Image

    pixels = np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))
    height, width = pixels.shape[:2]
    room = TILE - 2
    if max(height, width) <= _MAX_MAGNIFIED:
        factor = room // max(height, width)
        pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    else:
        scale = room / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        pixels = np.asarray(resized)
    return np.pad(pixels, ((1, 1), (1, 1), (0, 0)), constant_values=200)
