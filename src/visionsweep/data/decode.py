"""Image file -> (C, H, W) uint8 array: the decoder of training and prediction."""

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionsweep.data.dataset import Color, Preprocessing
from visionsweep.data.levels import NOT_FINITE, LevelRange, UnknownLevelsError, to_8_bit
from visionsweep.data.library_noise import noted
from visionsweep.data.open_image import REDUCING_GAP, as_unreadable, open_upright
from visionsweep.data.opened import Opened

# Formats that Pillow lists but cannot decode by itself: stubs, films, and PostScript, which runs as
# a program.
NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Decoded:
    """An image, and what was noticed while it was decoded."""

    pixels: npt.NDArray[np.uint8]  # (C, H, W)
    digest: bytes  # of the file
    damage: str | None  # why pixels are missing; those are grey
    notes: list[str]  # what the libraries said; no pixel is missing because of it
    has_transparency: bool


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that Pillow decodes, in lower case with their dot."""
    Image.init()
    readable = (Image.OPEN.keys() | {"MPO"}) - NO_PICTURES  # an MPO file is opened as a JPEG
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in readable
    )


def decode_image(
    path: str | Path, preprocessing: Preprocessing, *, repair: bool = False
) -> npt.NDArray[np.uint8]:
    """Return (C, H, W) uint8: upright, on `background`, the first of several frames.

    fit=crop covers the target and keeps the centre, pad fits inside it on black, stretch ignores
    the aspect ratio. `levels` AUTO takes the range of this image alone. With `repair`, the missing
    pixels of a damaged file are grey. Raises UnreadableImageError for anything wrong with the file.
    """
    path = Path(path)
    try:
        return decode_file(path, preprocessing, repair=repair).pixels
    except UnknownLevelsError:
        measured = measure_levels(path, preprocessing)
        assert measured is not None
        preprocessing = replace(preprocessing, levels=measured.levels())
        return decode_file(path, preprocessing, repair=repair).pixels


def decode_file(path: Path, preprocessing: Preprocessing, *, repair: bool = False) -> Decoded:
    """Return the image of `decode_image`, and what was noticed. The file is read once.

    Raises UnreadableImageError, and UnknownLevelsError for an image of more than 8 bits if `levels`
    is AUTO.
    """
    with noted() as notes, as_unreadable(path):
        content = path.read_bytes()
        opened, damage = open_upright(content, preprocessing, notes, repair=repair)
        if repair and (mended := opened.mended()) is not None:
            opened, damage = mended, damage or NOT_FINITE
        has_transparency = opened.image.has_transparency_data
        fitted = _fit(_to_mode(opened, preprocessing), preprocessing)
    pixels: npt.NDArray[np.uint8] = np.asarray(fitted)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
    return Decoded(np.ascontiguousarray(pixels), digest, damage, notes, has_transparency)


def measure_levels(path: Path, preprocessing: Preprocessing) -> LevelRange | None:
    """Return the grey levels of an image of more than 8 bits; None for others.

    Raises UnreadableImageError.
    """
    with noted() as notes, as_unreadable(path):
        opened, _ = open_upright(path.read_bytes(), preprocessing, notes, repair=False)
        pixels = opened.deep_pixels()
        return None if pixels is None else LevelRange.of(pixels)


def _to_mode(opened: Opened, preprocessing: Preprocessing) -> Image.Image:
    """Return the image in 8-bit mode L or RGB."""
    image, pixels = opened.image, opened.deep_pixels()
    if pixels is not None and not (opened.low is not None and preprocessing.levels is None):
        alpha = image.getchannel("A") if "A" in image.getbands() else None
        image = Image.fromarray(to_8_bit(pixels, preprocessing.levels))
        if alpha is not None:
            image.putalpha(alpha)
    if image.has_transparency_data:
        image = _without_transparency(image, preprocessing.background)
    mode = "L" if preprocessing.channels == 1 else "RGB"
    try:
        return image.convert(mode)
    except ValueError:  # such as LAB and HSV to L
        return image.convert("RGB").convert(mode)


def _without_transparency(image: Image.Image, background: Color | None) -> Image.Image:
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)  # from colors multiplied by alpha
    image = (image if straight is None else image.convert(straight)).convert("RGBA")
    if background is None:
        return image.convert("RGB")
    behind = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(behind, image).convert("RGB")


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
