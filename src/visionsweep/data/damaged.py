"""Damaged image files: what can be decoded of them, and whether any pixel is missing."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np
from PIL import ImageFile

from visionsweep.data.opened import Opened

# Appended to a file, and taken for its next pixels if some are missing. As data of a JPEG, where
# missing bits count as 0, it begins with bits of 1, and holds no marker but that of the end.
_OTHER_END = (b"\xfe" + bytes(range(254, 0, -1))) * 40 + b"\xff\xd9"

# Decodes a file; pixels that are not in it have the value of the second argument.
Load = Callable[[bytes, int], Opened]


class _Lenient(threading.local):
    """Pillow's LOAD_TRUNCATED_IMAGES, but for one thread: others still notice damage."""

    is_on = False

    def __bool__(self) -> bool:
        return self.is_on


_lenient = _Lenient()
ImageFile.LOAD_TRUNCATED_IMAGES = _lenient  # type: ignore[assignment]


@contextlib.contextmanager
def _leniently() -> Iterator[None]:
    before, _lenient.is_on = _lenient.is_on, True
    try:
        yield
    finally:
        _lenient.is_on = before


def rescue(content: bytes, load: Load) -> tuple[Opened, bool] | None:
    """Return what can be decoded of a file that `load` refused, and whether that is everything.

    Missing pixels are grey. None if there is nothing. Everything is there if the file lacks only
    its end, or if its metadata are damaged: then neither what missing pixels are filled with, nor
    what follows the file, makes a difference.
    """
    try:
        with _leniently():
            opened = load(content, 128)
            # A JPEG cut within a marker, whose first byte is 0xFF: as data, that is followed by 0.
            escape = b"\0" if content.endswith(b"\xff") else b""
            other = load(content + escape + _OTHER_END, 0)
    except MemoryError:
        raise
    except Exception:  # whatever Pillow raises for damaged files; the caller has the first error
        return None
    pixels = np.asarray(opened.image)
    is_whole = np.array_equal(pixels, np.asarray(other.image))
    return (opened, is_whole) if is_whole or (pixels != pixels[0, 0]).any() else None
