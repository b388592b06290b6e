"""The settings of `data.*` that say how a file becomes pixels: checked, and in checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from visionsweep.data.dataset import AUTO, MAX_PIXELS, Color, Levels, Preprocessing
from visionsweep.errors import ConfigError

Fit = Literal["crop", "pad", "stretch"]
IGNORE = "ignore"  # data.background: the pixels below the transparency


def make_preprocessing(
    image_size: int | Sequence[int],
    channels: int,
    fit: str,
    levels: Literal["auto"] | Sequence[float] = AUTO,
    background: str | Sequence[int] = "white",
    max_pixels: int | None = MAX_PIXELS,
) -> Preprocessing:
    """Return the preprocessing of `data.*`; raises ConfigError for a value no image can have."""
    sides = height_and_width(image_size)
    if sides is None:
        raise ConfigError(
            f"data.image_size: expected pixels, one number or [height, width], got {image_size}"
        )
    if channels not in (1, 3):
        raise ConfigError(f"data.channels: expected 1 (grey) or 3 (RGB), got {channels}")
    if fit not in get_args(Fit):
        raise ConfigError(f"data.fit: expected one of {', '.join(get_args(Fit))}, got {fit!r}")
    if max_pixels is not None and max_pixels < 1:
        raise ConfigError(f"data.max_pixels: expected at least 1, or null, got {max_pixels}")
    return Preprocessing(
        image_size=sides,
        channels=channels,
        fit=fit,
        levels=_levels(levels),
        background=_background(background),
        max_pixels=max_pixels,
    )


def height_and_width(value: int | Sequence[int]) -> tuple[int, int] | None:
    """Return both sides of a size given as one number or two; None for what is no size."""
    sides = list(value) if isinstance(value, Sequence) else [value, value]
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        return None
    return sides[0], sides[1]


def _levels(value: str | Sequence[float]) -> Levels:
    if value == AUTO:
        return AUTO
    if not isinstance(value, str) and len(value) == 2:
        low, high = value
        if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
            return float(low), float(high)
    raise ConfigError(f"data.levels: expected auto, or [low,high] with low below high, got {value}")


def _background(value: str | Sequence[int]) -> Color | None:
    from PIL import ImageColor  # not needed to store or read a checkpoint's

    if value == IGNORE:
        return None
    try:
        color = ImageColor.getrgb(value)[:3] if isinstance(value, str) else tuple(value)
    except ValueError:
        color = ()
    if len(color) != 3 or not all(isinstance(x, int) and 0 <= x <= 255 for x in color):
        raise ConfigError(
            "data.background: expected a color such as white, [red,green,blue] from 0 to 255, or "
            f"{IGNORE}, got {value}"
        )
    return color[0], color[1], color[2]


def to_plain(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the preprocessing in plain containers, for a checkpoint."""
    levels, background = preprocessing.levels, preprocessing.background
    return {
        "image_size": list(preprocessing.image_size),
        "channels": preprocessing.channels,
        "fit": preprocessing.fit,
        "levels": list(levels) if isinstance(levels, tuple) else levels,
        "background": None if background is None else list(background),
        "max_pixels": preprocessing.max_pixels,
    }


def from_plain(stored: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that `to_plain` stored, now or in an earlier version.

    Raises KeyError, TypeError or ConfigError if it is none.
    """
    background = stored.get("background", (255, 255, 255))
    checked = make_preprocessing(
        stored["image_size"],
        stored["channels"],
        stored["fit"],
        AUTO if stored.get("levels") is None else stored["levels"],
        IGNORE if background is None else background,
        stored.get("max_pixels", MAX_PIXELS),
    )
    # Without levels, the data had no image of more than 8 bits: any is read by its file's type.
    return checked if stored.get("levels") is not None else replace(checked, levels=None)
