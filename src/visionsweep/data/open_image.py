"""The bytes of an image file -> an upright image, as tolerant of bad metadata as can be."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from visionsweep.data.damaged import rescue
from visionsweep.data.dataset import Preprocessing
from visionsweep.data.levels import UnknownLevelsError
from visionsweep.data.opened import Opened, tiles_of_low_bytes
from visionsweep.errors import DataError

EXIF_ORIENTATION = 0x0112
# How to turn a stored image upright, by its orientation; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Shrink by whole factors down to this many times the wanted size, then filter: the default of
# Pillow's Image.thumbnail, close to filtering the full image in a fraction of the time.
REDUCING_GAP = 2.0


class UnreadableImageError(DataError):
    """A file that cannot be decoded; `reason` is the part of the message without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path} ({reason})")
        self.reason = reason


@contextlib.contextmanager
def as_unreadable(path: Path) -> Iterator[None]:
    """Raise UnreadableImageError for whatever is wrong with the file."""
    try:
        yield
    except (MemoryError, UnknownLevelsError):  # not the file's fault
        raise
    # For damaged files Pillow raises OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise UnreadableImageError(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text repeats the path
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        size, limit = (float(number) for number in re.findall(r"[0-9.]+", text)[:2])
        return f"{size:,.0f} pixels, more than data.max_pixels={limit:.0f}"
    return "truncated" if "truncated" in text.lower() else text


def open_upright(
    content: bytes, preprocessing: Preprocessing, notes: list[str], *, repair: bool
) -> tuple[Opened, str | None]:
    """Return the decoded, upright image, and why pixels are missing: only with `repair` may some.

    A JPEG may be decoded at a fraction of its size, at least REDUCING_GAP times the wanted one.
    Raises whatever Pillow raises; damage that costs no pixel is added to `notes` instead.
    """

    def load(data: bytes, fill: int | None = None) -> Opened:
        return _load(data, preprocessing, fill)

    # Pillow warns of more pixels than its limit, and refuses more than twice as many.
    limit = preprocessing.max_pixels
    Image.MAX_IMAGE_PIXELS = None if limit is None else limit / 2  # type: ignore[assignment]
    try:
        return load(content), None
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:
        rescued = rescue(content, load)
        if rescued is None or not (rescued[1] or repair):
            raise
        opened, is_whole = rescued
        if not is_whole:
            return opened, _reason(error)
        notes.append(f"{_reason(error)}, but no pixel is missing")
        return opened, None


def _load(content: bytes, preprocessing: Preprocessing, fill: int | None) -> Opened:
    """Return the image; pixels that are not in the file have the value `fill`."""
    height, width = preprocessing.image_size
    with Image.open(io.BytesIO(content)) as image:
        if isinstance(image, JpegImageFile):  # decode at 1/2, 1/4 or 1/8 if there is room to filter
            if _orientation(image) >= 5:  # 5 to 8 swap the axes
                height, width = width, height
            wanted = round(width * REDUCING_GAP), round(height * REDUCING_GAP)
            image.draft("L" if preprocessing.channels == 1 else "RGB", wanted)
        if fill is not None:
            num_bands = len(image.getbands())
            color = fill if num_bands == 1 else (fill,) * num_bands
            image.im = Image.new(image.mode, image.size, color).im
        low_tiles = tiles_of_low_bytes(image.tile) if isinstance(image, ImageFile) else None
        image.load()
        # Now, since some formats turn the image while loading it.
        turn = UPRIGHT.get(_orientation(image))
    # Not ImageOps.exif_transpose, which writes the metadata anew and fails if they are damaged.
    opened = Opened(image, None if low_tiles is None else _load_low(content, low_tiles))
    if turn is None:
        return opened
    low = None if opened.low is None else opened.low.transpose(turn)
    return Opened(image.transpose(turn), low)


def _load_low(content: bytes, tiles: list[Any]) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        assert isinstance(image, ImageFile)
        image.tile = tiles
        image.load()
    return image


def _orientation(image: Image.Image) -> int:
    """Return the orientation (1 to 8) of EXIF or XMP; 1 if it cannot be read."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # damaged metadata raise anything; the pixels are good
        return 1
    return orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1
