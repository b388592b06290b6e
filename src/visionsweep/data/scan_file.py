"""The file beside streamed images: what a run must know of all pixels before it starts.

An .npz with the sums of each image, its checksum, and the findings of the decoder: a few hundred
bytes per image. It stands where the decoded images would stand, see `cache_file`.
"""

import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionsweep.data.findings import Findings
from visionsweep.data.shared_file import DamagedError
from visionsweep.data.streamed import PixelSums
from visionsweep.rundir.atomic import atomic_write

SUFFIX = ".npz"
CONTENTS = "what is known of the images"


def read(path: Path, shape: tuple[int, ...]) -> tuple[PixelSums, Findings] | None:
    """Return what was written for images of `shape`; None if the file is missing.

    Raises `DamagedError`.
    """
    try:
        # Opened here: NumPy does not close a file that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            findings = Findings.of_json(json.loads(stored["findings"].tobytes()))
            pixels = PixelSums(stored["sums"], stored["squares"], stored["checksums"])
    except FileNotFoundError:
        return None
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise DamagedError(str(error)) from error
    num_images = shape[0] - len(findings.bad)
    expected = [(num_images, shape[1]), (num_images, shape[1]), (num_images,)]
    if [array.shape for array in (pixels.sums, pixels.squares, pixels.checksums)] != expected:
        raise DamagedError(f"it is not of {num_images:,} images")
    return pixels, findings


def write(
    path: Path,
    shape: tuple[int, ...],
    chunks: Iterable[npt.NDArray[np.uint8]],
    findings: Findings,
) -> None:
    """Write what is known of the images of the chunks, which may fill `findings`."""
    pixels = measure(chunks)
    text = np.frombuffer(json.dumps(vars(findings)).encode(), dtype=np.uint8)
    with atomic_write(path) as stream:
        np.savez(stream, findings=text, **vars(pixels))


def remove(path: Path) -> None:
    """Remove the file."""
    path.unlink(missing_ok=True)


def measure(chunks: Iterable[npt.NDArray[np.uint8]]) -> PixelSums:
    """Return the sums and checksums of the images of the chunks, (n, C, H, W) uint8 each."""
    sums, squares, checksums = [], [], []
    for chunk in chunks:
        pixels = chunk.reshape(*chunk.shape[:2], -1)
        sums.append(pixels.sum(axis=2, dtype=np.int64))
        # 255 x 255 fits in 16 bits, and four times as many numbers fit in a register
        squares.append(np.square(pixels, dtype=np.uint16).sum(axis=2, dtype=np.int64))
        checksums.append(np.array([zlib.crc32(image.data) for image in chunk], dtype=np.uint32))
    return PixelSums(np.concatenate(sums), np.concatenate(squares), np.concatenate(checksums))
