"""Images of more than 8 bits per pixel: the range of grey levels that becomes 0..255.

A camera or scanner fills 12 of 16 bits, a float image may hold 0..1 or temperatures: the file does
not say. One range serves a whole data set, so that a dark image stays darker than a bright one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionsweep.data.dataset import Levels

FEW_LEVELS = 32  # of 256; below, images have visible steps
NOT_FINITE = "pixels that are not finite"
MOST_PIXELS = (0.5, 99.5)  # percentiles: a few hot or dead pixels say nothing of the rest

Pixels = npt.NDArray[np.generic]


class UnknownLevelsError(Exception):
    """An image of more than 8 bits while the range of the data set is not measured yet."""


@dataclass(frozen=True)
class LevelRange:
    """The grey levels of one or more images."""

    low: float
    high: float
    usual_low: float  # of most pixels
    usual_high: float
    is_integer: bool

    @classmethod
    def of(cls, pixels: Pixels) -> "LevelRange":
        """Measure an image. Raises ValueError if no pixel is finite."""
        values = pixels.astype(np.float64)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            raise ValueError("no pixel is finite")
        usual_low, usual_high = np.percentile(values, MOST_PIXELS)
        return cls(
            float(values.min()),
            float(values.max()),
            float(usual_low),
            float(usual_high),
            np.issubdtype(pixels.dtype, np.integer),
        )

    def levels(self) -> tuple[float, float]:
        """Return the grey levels that become 0 and 255.

        The high one of integers is the next of 255, 511, 1023, ... 65535, ...; floats are 0..1 or
        0..255. With negative values, or larger floats, it is the range itself.
        """
        if self.low >= 0 and self.is_integer:
            return 0.0, float(2 ** max(8, int(self.high).bit_length()) - 1)
        if self.low >= 0 and self.high <= 255:
            return 0.0, 1.0 if self.high <= 1 else 255.0
        return self.low, max(self.high, self.low + 1)

    def explain_few(self) -> str | None:
        """Return a warning if `levels` leaves most pixels few of the 256 grey levels."""
        low, high = self.levels()
        num_levels = round((self.usual_high - self.usual_low) / (high - low) * 255) + 1
        has_more = not self.is_integer or num_levels < self.usual_high - self.usual_low
        if num_levels >= FEW_LEVELS or not has_more:
            return None
        return (
            f"most pixels lie in {self.usual_low:g}..{self.usual_high:g}, which leaves them "
            f"{num_levels} of 256 grey levels; data.levels=[{self.usual_low:g},"
            f"{self.usual_high:g}] would use them all"
        )


def join_ranges(ranges: Iterable[LevelRange]) -> LevelRange:
    """Return the range of all the images."""
    every = list(ranges)
    return LevelRange(
        min(each.low for each in every),
        max(each.high for each in every),
        min(each.usual_low for each in every),
        max(each.usual_high for each in every),
        all(each.is_integer for each in every),
    )


def to_8_bit(pixels: Pixels, levels: Levels) -> npt.NDArray[np.uint8]:
    """Map the grey levels to 0..255; those outside of the range become 0 or 255.

    Raises UnknownLevelsError for AUTO, and ValueError for pixels that are not finite.
    """
    if isinstance(levels, str):
        raise UnknownLevelsError
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(NOT_FINITE)
    low, high = levels or _levels_of_type(pixels)
    scaled = ((values - low) * (255.0 / (high - low))).clip(0, 255)
    eight_bit: npt.NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return eight_bit


def _levels_of_type(pixels: Pixels) -> tuple[float, float]:
    """Return 0..65535 for 16-bit integers, 0..1 or 0..255 for floats, else the image's own range.

    For a single image of more than 8 bits, to a network that was trained on others.
    """
    measured = LevelRange.of(pixels)
    if measured.low >= 0 and measured.is_integer and measured.high <= 65535:
        return 0.0, 65535.0
    if measured.is_integer:
        return measured.low, max(measured.high, measured.low + 1)
    return measured.levels()
