"""A decoded Pillow image, with all bits of its pixels.

Pillow gives one byte per color. Of colors of 16 bits in PNG and TIFF files that is the high one.
The low one is had by decoding the file again as if its bytes were in the other order.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# Pillow's names of the order of bytes: big endian, little endian, this machine's.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_CODECS = ("zip", "libtiff", "raw")  # of PNG and TIFF; the decoders of others ignore the order
_DEEP_COLORS = {f"{mode};16{order}" for mode in ("RGB", "RGBA") for order in _OTHER_ORDER}


@dataclass(frozen=True)
class Opened:
    """An image; ``low``: the low bytes of its colors, if they have 16 bits."""

    image: Image.Image
    low: Image.Image | None = None

    def deep_pixels(self) -> npt.NDArray[np.generic] | None:
        """Return (H, W) or (H, W, 3) pixels of more than 8 bits; None if they have 8."""
        if self.image.mode.startswith(("I", "F")):
            return np.asarray(self.image)
        if self.low is None:
            return None
        high, low = (np.asarray(each)[..., :3] for each in (self.image, self.low))
        pixels: npt.NDArray[np.uint16] = high.astype(np.uint16) * 256 + low
        return pixels

    def mended(self) -> "Opened | None":
        """Return the image with its lowest value instead of pixels that are not finite.

        None if all are finite, or none is.
        """
        if self.image.mode != "F":
            return None
        pixels = np.asarray(self.image)
        is_finite = np.isfinite(pixels)
        if is_finite.all() or not is_finite.any():
            return None
        lowest = pixels[is_finite].min()
        return Opened(Image.fromarray(np.where(is_finite, pixels, lowest)))


def tiles_of_low_bytes(tiles: Sequence[Any]) -> list[Any] | None:
    """Return the tiles of Pillow that decode to the low bytes of colors of 16 bits.

    None if the image has others.
    """
    other_tiles = []
    for tile in tiles:
        is_text = isinstance(tile.args, str)
        mode, *rest = (tile.args,) if is_text else tile.args or (None,)
        if mode not in _DEEP_COLORS or tile.codec_name not in _CODECS:
            return None
        other = mode[:-1] + _OTHER_ORDER[mode[-1]]
        other_tiles.append(tile._replace(args=other if is_text else (other, *rest)))
    return other_tiles or None
