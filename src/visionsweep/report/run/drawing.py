"""Colours, names and the PNG files of a run's pictures.

The pictures use matplotlib's objects and never pyplot: no window system, no figures left open.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionsweep.rundir.atomic import atomic_write
from visionsweep.text import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart, a little darker, without yellow.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#2a6fbb", "#d9731a", "#12876a", "#b0568f", "#4fb0e0"
GRAY, DARK = "#8a8a8a", "#333333"

_MAX_NAME_LENGTH = 20
# DejaVu Sans comes with matplotlib. It has Latin, Greek, Cyrillic and much more, but no CJK.
_FONT = "DejaVu Sans"
_FALLBACK_FONTS = (
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


@contextlib.contextmanager
def drawing_style(names: Iterable[str]) -> Iterator[None]:
    """Set fonts that have the characters of `names`, and matplotlib's defaults for our pictures.

    A "$" in a name is no mathematics. A character that no installed font has becomes a box.
    """
    from matplotlib import rc_context

    is_ascii = all(name.isascii() for name in names)
    style: dict[Any, Any] = {
        "font.family": [_FONT] if is_ascii else [_FONT, *_installed_fallback_fonts()],
        "font.size": 9,
        "text.parse_math": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "grid.color": "#e6e6e6",
        "figure.constrained_layout.w_pad": 0.1,
        "figure.constrained_layout.h_pad": 0.1,
    }
    with rc_context(style), warnings.catch_warnings(action="ignore", category=UserWarning):
        yield


@functools.cache
def _installed_fallback_fonts() -> tuple[str, ...]:
    # matplotlib logs a warning for each family that it does not find
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _FALLBACK_FONTS if name in installed)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of `width` x `height` inches that makes room for all its texts."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def save_png(figure: "Figure", path: Path) -> None:
    """Write the figure atomically; the same figure gives the same bytes."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def short_name(name: str, limit: int = _MAX_NAME_LENGTH) -> str:
    """Return a name of at most `limit` characters, with "?" for what cannot be printed."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return shortened(printable, limit)
