"""What the pictures of a run share: colours, figures, the text of names, the PNG file.

Uses matplotlib's objects with the Agg canvas, never pyplot, so there is no global state and no display. The
pictures are drawn at the end of every trial, so they are laid out for speed: margins are computed from the
widths of the texts, a figure is drawn once (the constrained layout draws it twice, a tight box once more), and ticks
are lines and texts of our own: matplotlib's axes with ticks take 22 ms, without them 4 ms (3.11, one CPU core).
"""

import functools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visionsweep.rundir.atomic import atomic_write
from visionsweep.text import shortened as cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
MAX_NAME_LENGTH = 20
# Told apart also by the colour-blind: Okabe and Ito's palette, a little darker, without its yellow.
BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY = (
    "#2a6fbb",
    "#d9731a",
    "#12876a",
    "#b0568f",
    "#4fb0e0",
    "#8a8a8a",
)
DARK = "#333333"

_PLAIN_FONT = (
    "DejaVu Sans"  # comes with matplotlib; Latin, Greek, Cyrillic, and much more, but no CJK
)
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
    return figure.add_axes(
        (left / total_width, bottom / total_height, width / total_width, height / total_height)
    )


def add_plot(
    figure: "Figure",
    box: tuple[float, float, float, float],
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    xticks: Sequence[float],
    yticks: Sequence[float],
    xlabel: str = "",
    ylabel: str = "",
    has_grid: bool = False,
) -> "Axes":
    """Add axes with a left and a lower line, ticks and labels; without ``xlabel`` the numbers below are left out too.

    ``box``: left, bottom, width and height in inches; ``x``, ``y``: the limits. Room for numbers and labels outside
    the box is the caller's: 0.65 inches at the left, 0.5 below.
    """
    from matplotlib.collections import LineCollection

    axes = add_axes(figure, *box)
    axes.axis("off")
    axes.set(xlim=x, ylim=y)
    _, _, width, height = box
    across, up = _fractions(xticks, x), _fractions(yticks, y)
    grid = [((at, 0.0), (at, 1.0)) for at in across] + [((0.0, at), (1.0, at)) for at in up]
    frame = [((0.0, 1.0), (0.0, 0.0)), ((0.0, 0.0), (1.0, 0.0))]
    frame += [((at, 0.0), (at, -0.05 / height)) for at in across] + [
        ((0.0, at), (-0.05 / width, at)) for at in up
    ]
    for segments, color, order in ((grid if has_grid else [], "#e6e6e6", 0.5), (frame, DARK, 3.0)):
        lines = LineCollection(
            segments,
            colors=color,
            linewidths=0.8,
            transform=axes.transAxes,
            clip_on=False,
            zorder=order,
        )
        axes.add_collection(lines, autolim=False)
    style: dict[str, Any] = {"transform": axes.transAxes, "color": DARK}
    for at, tick in zip(up, yticks, strict=True):
        axes.text(-0.09 / width, at, f"{tick:g}", ha="right", va="center", fontsize=9, **style)
    axes.text(
        -0.55 / width, 0.5, ylabel, ha="center", va="center", rotation=90, fontsize=10, **style
    )
    if xlabel:
        for at, tick in zip(across, xticks, strict=True):
            axes.text(at, -0.09 / height, f"{tick:g}", ha="center", va="top", fontsize=9, **style)
        axes.text(0.5, -0.28 / height, xlabel, ha="center", va="top", fontsize=10, **style)
    return axes


def ticks_within(low: float, high: float, count: int, *, is_integer: bool = False) -> list[float]:
    """Return about `count` round numbers in [low, high]."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=count, integer=is_integer, min_n_ticks=1).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def add_title(axes: "Axes", title: str, above: float = 0.1) -> None:
    """Write a title at the left, `above` inches over the axes."""
    height = axes.get_position().height * axes.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    axes.text(0, 1 + above / height, title, fontsize=11, color=DARK, transform=axes.transAxes)


def save_png(
    figure: "Figure", path: Path, pictures: Iterable[tuple[int, int, NDArray[np.uint8]]] = ()
) -> None:
    """Draw the figure once and write it, atomically.

    ``pictures``: top, left (in pixels from the upper left corner) and (h, w, 3) RGB; they are copied over the figure,
    pixel by pixel.
    """
    from PIL import Image

    canvas: Any = figure.canvas  # matplotlib's own types are incomplete here
    with _without_glyph_warnings():
        canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    for top, left, picture in pictures:
        pixels[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    image = Image.fromarray(pixels)
    with atomic_write(path) as file:
        image.save(file, format="png", compress_level=3)


def shortened(name: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Cut a long name in its middle: what tells names apart is often at their end. What cannot be drawn becomes "?"."""
    drawable = "".join(character if character.isprintable() else "?" for character in name)
    return cut(drawable, max_length)


def name_style(names: Iterable[str], size: float) -> dict[str, Any]:
    """Return the properties of a matplotlib text for users' names: a font that has them, and no mathematics in "$"."""
    return {"fontsize": size, "fontfamily": _families(names), "parse_math": False}


def text_width(texts: Sequence[str], size: float) -> float:
    """Return the width in inches of the widest text at a font size in points; 0 without texts.

    It is the sum of the widths of the characters: a few percent too much where a script joins them.
    """
    return max((sum(map(_advance, text)) for text in texts), default=0.0) * size / 72


def fitted(text: str, size: float, width: float) -> str:
    """Cut a text in its middle until it is no wider than `width` inches."""
    result = shortened(text, max(8, len(text)))
    for length in range(len(result) - 1, 7, -1):
        if text_width([result], size) <= width:
            break
        result = shortened(text, length)
    return result


def _families(texts: Iterable[str]) -> list[str]:
    return (
        [_PLAIN_FONT]
        if all(text.isascii() for text in texts)
        else [_PLAIN_FONT, *_installed_other_fonts()]
    )


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
    return make(1, 1, dpi=72)  # where a point is a pixel


@functools.cache
def _advance(character: str) -> float:
    """Return the width of a character as a share of the font size."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=_families([character]), size=100)
    with _without_glyph_warnings():
        # Between two others: alone it would be measured without the space around it.
        around, alone = (
            _ruler().get_text_width_height_descent(text, font, ismath=False)[0]
            for text in (f"x{character}x", "xx")
        )
    return float(around - alone) / 100


def _fractions(ticks: Sequence[float], limits: tuple[float, float]) -> list[float]:
    low, high = limits
    return [(tick - low) / (high - low) for tick in ticks]


def _without_glyph_warnings() -> warnings.catch_warnings:
    """A character that no font of the machine has is drawn as a box; a warning for each is no help."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
