"""Image file -> (C, H, W) uint8 array: the decoder of training and prediction."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from visionsweep.data.dataset import Preprocessing
from visionsweep.errors import ConfigError, DataError

Fit = Literal["crop", "pad", "stretch"]
# Formats that Pillow lists but cannot decode by itself: stubs, films, and PostScript, which runs as
# a program.
NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
EXIF_ORIENTATION = 0x0112
# Shrink by whole factors down to this many times the wanted size, then filter: the default of
# Pillow's Image.thumbnail, close to filtering the full image in a fraction of the time.
REDUCING_GAP = 2.0


class UnreadableImageError(DataError):
    """A file that cannot be decoded; `reason` is the part of the message without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path} ({reason})")
        self.reason = reason


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that Pillow decodes, in lower case with their dot."""
    Image.init()
    readable = (Image.OPEN.keys() | {"MPO"}) - NO_PICTURES  # an MPO file is opened as a JPEG
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in readable
    )


def make_preprocessing(image_size: int | Sequence[int], channels: int, fit: str) -> Preprocessing:
    """Return the preprocessing of `data.*`; raises ConfigError for a value no image can have."""
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise ConfigError(
            f"data.image_size: expected pixels, one number or [height, width], got {image_size}"
        )
    if channels not in (1, 3):
        raise ConfigError(f"data.channels: expected 1 (grey) or 3 (RGB), got {channels}")
    if fit not in get_args(Fit):
        raise ConfigError(f"data.fit: expected one of {', '.join(get_args(Fit))}, got {fit!r}")
    return Preprocessing(image_size=(sides[0], sides[1]), channels=channels, fit=fit)


def decode_image(path: str | Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return (C, H, W) uint8: upright (EXIF), transparency on white, the first of several frames.

    fit=crop covers the target and keeps the centre, pad fits inside it on black, stretch ignores
    the aspect ratio. Raises UnreadableImageError for anything wrong with the file.
    """
    path = Path(path)
    try:
        with Image.open(path) as opened:
            upright = _load_upright(opened, preprocessing)
        image = _fit(
            _to_mode(upright, "L" if preprocessing.channels == 1 else "RGB"), preprocessing
        )
    except MemoryError:  # not the file's fault
        raise
    # For damaged files Pillow raises OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise UnreadableImageError(path, _reason(error)) from error
    pixels: npt.NDArray[np.uint8] = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text repeats the path
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    return "truncated" if "truncated" in text.lower() else text


def _load_upright(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    height, width = preprocessing.image_size
    if image.getexif().get(EXIF_ORIENTATION, 1) >= 5:  # 5 to 8 swap the axes
        height, width = width, height
    # Decodes a JPEG at 1/2, 1/4 or 1/8 if that leaves room to filter; other formats ignore it.
    wanted = round(width * REDUCING_GAP), round(height * REDUCING_GAP)
    image.draft("L" if preprocessing.channels == 1 else "RGB", wanted)
    image.load()
    return ImageOps.exif_transpose(image)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in 8-bit mode L or RGB."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert(mode)


def _to_8_bit(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Map grey levels of more than 8 bits to 0..255; clipping would leave a white image.

    16-bit integers are divided by 257; floats are 0..1 or 0..255. If values lie outside of these
    ranges, their minimum and maximum become 0 and 255.
    """
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("pixels that are not finite")
    is_integer = np.issubdtype(pixels.dtype, np.integer)
    nominal = next(
        (top for top in ((65535.0,) if is_integer else (1.0, 255.0)) if high <= top), None
    )
    if low < 0 or nominal is None:
        values -= low
        nominal = (high - low) or 1.0
    return np.rint(values * (255.0 / nominal)).astype(np.uint8)


def _fit(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    height, width = preprocessing.image_size
    if image.size == (width, height):
        return image
    scales = width / image.width, height / image.height
    if preprocessing.fit == "pad":
        scale = min(scales)
        inside = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        resized = image.resize(inside, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
        canvas = Image.new(image.mode, (width, height))
        canvas.paste(resized, ((width - inside[0]) // 2, (height - inside[1]) // 2))
        return canvas
    cut_width, cut_height = float(image.width), float(image.height)
    if preprocessing.fit == "crop":
        scale = max(scales)
        cut_width, cut_height = min(cut_width, width / scale), min(cut_height, height / scale)
    left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return image.resize(
        (width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP
    )
