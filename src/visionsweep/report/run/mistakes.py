"""The contact sheet of a model's worst mistakes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionsweep.report.run.drawing import DARK, GRAY, new_figure, save_png, short_name

COLUMNS = 6
_NAME_LENGTH = 18  # characters
_ARROW = "\u2192"
_MAX_MAGNIFIED = 64  # pixels; smaller images are enlarged without blur, to show their pixels


def draw_mistakes(
    images: NDArray[np.uint8],
    true_names: Sequence[str],
    predicted_names: Sequence[str],
    confidences: Sequence[float] | NDArray[np.floating],
    ids: Sequence[str],
    path: Path,
) -> None:
    """Draw the (M, C, H, W) uint8 images of mistakes in the order given, gray or RGB.

    Below each stand the target, the prediction, its confidence and the image's file name. Without
    mistakes a small picture says so.
    """
    if not len(images):
        figure = new_figure(3.6, 0.8)
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center", fontsize=12, color=DARK)
        save_png(figure, path)
        return
    columns, rows = max(3, min(COLUMNS, len(images))), -(-len(images) // COLUMNS)
    figure = new_figure(1.9 * columns, 2.2 * rows + 0.4)
    title = f"most confident mistakes: target {_ARROW} prediction, confidence, file"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=DARK)
    height, width = images.shape[2:]
    interpolation = "nearest" if max(height, width) <= _MAX_MAGNIFIED else "auto"
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(grid.flat):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=index < len(images), color="#c8c8c8")
        if index >= len(images):
            continue
        pixels = np.broadcast_to(images[index], (3, height, width)).transpose(1, 2, 0)
        axes.imshow(pixels, interpolation=interpolation)
        target, pred = (
            short_name(names[index], _NAME_LENGTH) for names in (true_names, predicted_names)
        )
        between = " " if len(target) + len(pred) <= _NAME_LENGTH else "\n"
        caption = f"{target}{between}{_ARROW} {pred}"
        axes.set_title(caption, loc="center", fontsize=7.5, color=DARK)
        name = short_name(ids[index].rsplit("/", 1)[-1], 22)
        axes.set_xlabel(f"{confidences[index]:.2f}  {name}", fontsize=7, color=GRAY)
    save_png(figure, path)
