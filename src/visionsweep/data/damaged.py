"""Damaged image files: what can be decoded of them, and whether any pixel is missing."""

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import ImageFile

from visionsweep.data.opened import Opened

# Appended to a file, and taken for its next pixels if some are missing. As data of a JPEG, where
# missing bits count as 0, it begins with bits of 1, and holds no marker but that of the end.
_OTHER_END = (b"\xfe" + bytes(range(254, 0, -1))) * 40 + b"\xff\xd9"

_PNG = b"\x89PNG\r\n\x1a\n"
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
    mended = _with_png_checksums(content)
    try:
        if mended != content:
            with contextlib.suppress(Exception):
                return load(mended, 128), True  # the pixels have a checksum of their own, too
        with _leniently():
            opened = load(mended, 128)
            # A JPEG cut within a marker, whose first byte is 0xFF: as data, that is followed by 0.
            escape = b"\0" if content.endswith(b"\xff") else b""
            other = load(mended + escape + _OTHER_END, 0)
    except MemoryError:
        raise
    except Exception:  # whatever Pillow raises for damaged files; the caller has the first error
        return None
    pixels = np.asarray(opened.image)
    is_whole = mended == content and np.array_equal(pixels, np.asarray(other.image))
    return (opened, is_whole) if is_whole or (pixels != pixels[0, 0]).any() else None


def _with_png_checksums(content: bytes) -> bytes:
    """Return a PNG file with the checksums that its chunks should have; other files as they are."""
    if not content.startswith(_PNG):
        return content
    parts, place = [_PNG], len(_PNG)
    while place < len(content):
        body_end = place + 8 + int.from_bytes(content[place : place + 4])
        checked = content[place + 4 : body_end]
        if body_end + 4 > len(content):  # cut off
            parts.append(content[place:])
            break
        parts.append(content[place : place + 4] + checked + zlib.crc32(checked).to_bytes(4))
        place = body_end + 4
    return b"".join(parts)
