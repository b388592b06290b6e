"""What the pictures of a run share: colours, figures, the text of names, the PNG file.

Uses matplotlib's objects with the Agg canvas, never pyplot, so there is no global state and no display. The
pictures are drawn at the end of every trial, so they are laid out for speed: margins are computed from the
widths of the texts and a figure is drawn once (the constrained layout draws it twice, a tight box once more).
"""

import functools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionsweep.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
MAX_NAME_LENGTH = 20
# Told apart also by the colour-blind: Okabe and Ito's palette, a little darker, without its yellow.
BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY = "#2a6fbb", "#d9731a", "#12876a", "#b0568f", "#4fb0e0", "#8a8a8a"
DARK = "#333333"

_PLAIN_FONT = "DejaVu Sans"  # comes with matplotlib; Latin, Greek, Cyrillic, and much more, but no CJK
_OTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty white figure of `width` x `height` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """Add axes at a place in inches from the lower left corner."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def save_png(figure: "Figure", path: Path) -> None:
    """Draw the figure once and write it, atomically."""
    from PIL import Image

    canvas: Any = figure.canvas  # matplotlib's own types are incomplete here
    with _without_glyph_warnings():
        canvas.draw()
    image = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    with atomic_write(path) as file:
        image.save(file, format="png", compress_level=3)


def shortened(name: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Cut a long name in its middle: what tells names apart is often at their end. What cannot be drawn becomes "?"."""
    drawable = "".join(character if character.isprintable() else "?" for character in name)
    if len(drawable) <= max_length:
        return drawable
    tail = (max_length - 3) // 2
    head = max_length - 3 - tail
    return f"{drawable[:head]}...{drawable[-tail:] if tail else ''}"


def name_style(names: Iterable[str], size: float) -> dict[str, Any]:
    """Return the properties of a matplotlib text for users' names: a font that has them, and no mathematics in "$"."""
    return {"fontsize": size, "fontfamily": _families(names), "parse_math": False}


def text_width(texts: Sequence[str], size: float) -> float:
    """Return the width in inches of the widest text at a font size in points; 0 without texts."""
    from matplotlib.font_manager import FontProperties

    font, renderer = FontProperties(family=_families(texts), size=size), _ruler()
    with _without_glyph_warnings():
        widths = [renderer.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts]
    return float(max(widths, default=0.0)) / DPI


def fitted(text: str, size: float, width: float) -> str:
    """Cut a text in its middle until it is no wider than `width` inches."""
    result = shortened(text, max(8, len(text)))
    for length in range(len(result) - 1, 7, -1):
        if text_width([result], size) <= width:
            break
        result = shortened(text, length)
    return result


def _families(texts: Iterable[str]) -> list[str]:
    return [_PLAIN_FONT] if all(text.isascii() for text in texts) else [_PLAIN_FONT, *_installed_other_fonts()]


@functools.cache
def _installed_other_fonts() -> tuple[str, ...]:
    # matplotlib logs a warning for each family that it does not find.
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _OTHER_FONTS if name in installed)


@functools.cache
def _ruler() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    make: Any = RendererAgg
    return make(1, 1, DPI)


def _without_glyph_warnings() -> warnings.catch_warnings:
    """A character that no font of the machine has is drawn as a box; a warning for each is no help."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
