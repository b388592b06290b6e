"""Many image files -> chunks of uint8 images, on all cores, and what was found on the way."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import Decoded, decode_file, measure_levels
from visionsweep.data.findings import Findings
from visionsweep.data.levels import LevelRange, UnknownLevelsError, join_ranges
from visionsweep.data.library_noise import quiet_libraries
from visionsweep.data.open_image import UnreadableImageError
from visionsweep.data.progress import progress
from visionsweep.errors import DataError
from visionsweep.machine import count_cores
from visionsweep.text import counted

logger = logging.getLogger(__name__)

CHUNK = 64  # images per task: few enough to keep all cores busy, many enough to hide the queue
AHEAD = 3  # tasks per core that wait for the disk or for their turn; more only take memory

_T = TypeVar("_T")


def shape_of(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return (C, H, W) of a decoded image."""
    return (preprocessing.channels, *preprocessing.image_size)


def decode_chunks(
    paths: Sequence[Path], preprocessing: Preprocessing, findings: Findings, *, repair: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield chunks of the readable images in order, and fill `findings`.

    Raises UnknownLevelsError if `levels` is AUTO and an image has more than 8 bits.
    """
    start = time.perf_counter()

    def decode_chunk(first: int) -> list[Decoded | UnreadableImageError]:
        return [_try(path, preprocessing, repair=repair) for path in paths[first : first + CHUNK]]

    with quiet_libraries(), progress(logger, "decoded", len(paths)) as advance:
        for first, chunk in _in_threads(decode_chunk, range(0, len(paths), CHUNK)):
            images = []
            for index, decoded in enumerate(chunk, first):
                if isinstance(decoded, Decoded):
                    findings.add(index, decoded)
                    images.append(decoded.pixels)
                else:
                    findings.bad[index] = decoded.reason
            yield np.array(images, dtype=np.uint8).reshape(-1, *shape_of(preprocessing))
            advance(first + len(chunk))
    logger.info(
        "decoded %s images to %s in %.1f s%s",
        f"{len(paths) - len(findings.bad):,}",
        "x".join(map(str, shape_of(preprocessing))),
        time.perf_counter() - start,
        _explain_notes(paths, findings.noted),
    )


def _in_threads(call: Callable[[int], _T], starts: range) -> Iterator[tuple[int, _T]]:
    """Yield each start and its result in order; few are ahead, whatever becomes of them."""
    with ThreadPoolExecutor(count_cores()) as executor:  # Pillow frees the GIL
        pending: deque[tuple[int, Future[_T]]] = deque()
        for start in starts:
            pending.append((start, executor.submit(call, start)))
            if len(pending) > AHEAD * count_cores():
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()


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

    ranges = []
    with (
        quiet_libraries(),
        progress(logger, "measured the grey levels of", len(paths)) as advance,
        ThreadPoolExecutor(count_cores()) as executor,
    ):
        for done, each in enumerate(executor.map(measure, paths), 1):
            if each is not None:
                ranges.append(each)
            advance(done)
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
