"""Many image files -> chunks of uint8 images, on all cores, and what was found on the way."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import Decoded, decode_file, measure_levels
from visionsweep.data.findings import Findings
from visionsweep.data.levels import LevelRange, UnknownLevelsError, join_ranges
from visionsweep.data.library_noise import quiet_libraries
from visionsweep.data.open_image import UnreadableImageError
from visionsweep.errors import DataError
from visionsweep.machine import count_cores
from visionsweep.text import counted, duration_text

logger = logging.getLogger(__name__)

CHUNK = 64  # images per task: few enough to keep all cores busy, many enough to hide the queue
SILENT_SECONDS = 5.0  # between two lines about the progress


def shape_of(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return (C, H, W) of a decoded image."""
    return (preprocessing.channels, *preprocessing.image_size)


def decode_chunks(
    paths: Sequence[Path], preprocessing: Preprocessing, findings: Findings, *, repair: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield chunks of the readable images in order, and fill `findings`.

    Raises UnknownLevelsError if `levels` is AUTO and an image has more than 8 bits.
    """
    start = said = time.perf_counter()
    starts = range(0, len(paths), CHUNK)

    def decode_chunk(first: int) -> list[Decoded | UnreadableImageError]:
        return [_try(path, preprocessing, repair=repair) for path in paths[first : first + CHUNK]]

    with quiet_libraries(), ThreadPoolExecutor(count_cores()) as executor:  # Pillow frees the GIL
        for first, chunk in zip(starts, executor.map(decode_chunk, starts), strict=True):
            images = []
            for index, decoded in enumerate(chunk, first):
                if isinstance(decoded, Decoded):
                    findings.add(index, decoded)
                    images.append(decoded.pixels)
                else:
                    findings.bad[index] = decoded.reason
            yield np.array(images, dtype=np.uint8).reshape(-1, *shape_of(preprocessing))
            now, done = time.perf_counter(), first + len(chunk)
            if now - said >= SILENT_SECONDS:
                said, left = now, (now - start) / done * (len(paths) - done)
                logger.info(
                    "decoded %s of %s images, %s left",
                    *(f"{done:,}", f"{len(paths):,}", duration_text(left)),
                )
    logger.info(
        "decoded %s images to %s in %.1f s%s",
        f"{len(paths) - len(findings.bad):,}",
        "x".join(map(str, shape_of(preprocessing))),
        time.perf_counter() - start,
        _explain_notes(paths, findings.noted),
    )


def _try(
    path: Path, preprocessing: Preprocessing, *, repair: bool
) -> Decoded | UnreadableImageError:
    try:
        return decode_file(path, preprocessing, repair=repair)
    except UnreadableImageError as error:
        return error


def is_readable(path: Path, preprocessing: Preprocessing, *, repair: bool) -> bool:
    """Return whether the file can be decoded."""
    try:
        return isinstance(_try(path, preprocessing, repair=repair), Decoded)
    except UnknownLevelsError:
        return True


def _explain_notes(paths: Sequence[Path], noted: Mapping[int, str]) -> str:
    if not noted:
        return ""
    index, text = next(iter(noted.items()))
    return f"; warnings about {counted(len(noted), 'file')}, e.g. {paths[index]} ({text:.200})"


def measure_all_levels(paths: Sequence[Path], preprocessing: Preprocessing) -> Findings:
    """Return findings with the grey levels of all images of more than 8 bits, and nothing else."""

    def measure(path: Path) -> LevelRange | None:
        try:
            return measure_levels(path, preprocessing)
        except UnreadableImageError:  # counted when it is decoded
            return None

    with quiet_libraries(), ThreadPoolExecutor(count_cores()) as executor:
        ranges = [each for each in executor.map(measure, paths) if each is not None]
    if not ranges:
        raise DataError("the images of more than 8 bits vanished while they were read; start again")
    joined = join_ranges(ranges)
    low, high = joined.levels()
    return Findings(
        levels=(low, high),
        levels_text=(
            f"{counted(len(ranges), 'image')} with more than 8 bits per pixel, grey levels "
            f"{joined.low:g}..{joined.high:g}: {low:g} becomes black and {high:g} white "
            "(data.levels=auto)"
        ),
        levels_warning=joined.explain_few(),
    )
