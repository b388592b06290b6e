"""Many image files -> one uint8 tensor, decoded once for all runs."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch import Tensor

from visionsweep.data import cache_file
from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import UnreadableImageError, decode_image
from visionsweep.data.paths import absolute, default_cache_dir
from visionsweep.errors import ConfigError, DataError
from visionsweep.machine import count_cores
from visionsweep.rundir.lock import lock_file
from visionsweep.text import duration_text

logger = logging.getLogger(__name__)

OnBadImage = Literal["error", "skip"]
FORMAT_VERSION = 2  # raise it when decoding or the file's layout changes
CHUNK = 64  # images per task: few enough to keep all cores busy, many enough to hide the queue
SILENT_SECONDS = 5.0  # between two lines about the progress


@dataclass(frozen=True)
class DecodedImages:
    """Decoded files; the i-th image comes from the file with index kept[i]."""

    images: Tensor  # (len(kept), C, H, W) uint8; writes to a memory map stay in this process
    kept: list[int]
    bad: list[str]  # paths of the files left out


def decode_all(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    on_bad_image: OnBadImage,
    cache_dir: str | None,
) -> DecodedImages:
    """Decode the files, or open what an earlier or a parallel run decoded.

    `cache_dir` None is the user's cache folder, "none" memory only. If a file changes (size or
    time), all are decoded again. Raises DataError for unreadable files unless on_bad_image is skip.
    """
    if on_bad_image not in ("error", "skip"):
        raise ConfigError(f"data.on_bad_image: expected error or skip, got {on_bad_image!r}")
    if not paths:
        raise DataError("no image to decode")
    if cache_dir == "none":
        images, bad = _decode_to_memory(paths, preprocessing)
    else:
        folder = default_cache_dir() if cache_dir is None else absolute("data.cache_dir", cache_dir)
        images, bad = _open_or_build(folder, paths, preprocessing)
    _report(paths, bad, on_bad_image)
    kept = [index for index in range(len(paths)) if index not in bad]
    return DecodedImages(images, kept, [str(paths[index]) for index in bad])


def _report(paths: Sequence[Path], bad: dict[int, str], on_bad_image: OnBadImage) -> None:
    if not bad:
        return
    index, reason = next(iter(bad.items()))
    line = f"cannot read {paths[index]} ({reason}); {len(bad):,} of {len(paths):,} files"
    if on_bad_image == "error":
        raise DataError(f"{line}. Fix it, or set data.on_bad_image=skip")
    if len(bad) == len(paths):
        raise DataError(f"{line}: no image is left")
    logger.warning("%s left out (data.on_bad_image=skip)", line)


def _decode_chunks(
    paths: Sequence[Path], preprocessing: Preprocessing, bad: dict[int, str]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield chunks of the readable images in order; add the reasons of the others to `bad`."""

    def decode_chunk(start: int) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
        images, reasons = [], {}
        for index in range(start, min(start + CHUNK, len(paths))):
            try:
                images.append(decode_image(paths[index], preprocessing))
            except UnreadableImageError as error:
                reasons[index] = error.reason
        return np.array(images, dtype=np.uint8).reshape(-1, *_shape(preprocessing)), reasons

    start = said = time.perf_counter()
    with ThreadPoolExecutor(count_cores()) as executor:  # Pillow releases the GIL
        starts = range(0, len(paths), CHUNK)
        for first, (images, reasons) in zip(
            starts, executor.map(decode_chunk, starts), strict=True
        ):
            bad.update(reasons)
            yield images
            now, done = time.perf_counter(), min(first + CHUNK, len(paths))
            if now - said >= SILENT_SECONDS:
                said, left = now, (now - start) / done * (len(paths) - done)
                logger.info(
                    "decoded %s of %s images, %s left",
                    *(f"{done:,}", f"{len(paths):,}", duration_text(left)),
                )
    logger.info(
        "decoded %s images to %s in %.1f s",
        f"{len(paths) - len(bad):,}",
        "x".join(map(str, _shape(preprocessing))),
        time.perf_counter() - start,
    )


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    return (preprocessing.channels, *preprocessing.image_size)


def _decode_to_memory(
    paths: Sequence[Path], preprocessing: Preprocessing
) -> tuple[Tensor, dict[int, str]]:
    count, bad = 0, dict[int, str]()
    images = np.empty((len(paths), *_shape(preprocessing)), dtype=np.uint8)
    for chunk in _decode_chunks(paths, preprocessing, bad):
        images[count : count + len(chunk)] = chunk
        count += len(chunk)
    return torch.from_numpy(images[:count]), bad


def _open_or_build(
    folder: Path, paths: Sequence[Path], preprocessing: Preprocessing
) -> tuple[Tensor, dict[int, str]]:
    path = folder / f"{_key(paths, preprocessing)}.npy"
    found = _open(path, len(paths), preprocessing)
    if found is not None and any(
        _is_readable_now(paths[index], preprocessing) for index in found[1]
    ):
        # A network folder was away, or permissions were wrong.
        cache_file.remove(path)
        found = None
    if found is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with lock_file(path.with_suffix(".lock")):
                # Another process may have built it while this one waited.
                if _open(path, len(paths), preprocessing) is None:
                    bad: dict[int, str] = {}
                    chunks = _decode_chunks(paths, preprocessing, bad)
                    cache_file.write(path, (len(paths), *_shape(preprocessing)), chunks, bad)
                    logger.info("cached decoded images in %s", path)
        except OSError as error:
            raise DataError(
                f"data.cache_dir: cannot write {path} ({error.strerror or error}). "
                "Set data.cache_dir=FOLDER, or data.cache_dir=none to keep images in memory"
            ) from error
        found = _open(path, len(paths), preprocessing)
        if found is None:
            raise DataError(
                f"data.cache_dir: {path} vanished while it was being opened; start again"
            )
    return found


def _open(
    path: Path, num_files: int, preprocessing: Preprocessing
) -> tuple[Tensor, dict[int, str]] | None:
    """Return images and bad files from the cache; None if there are none, or damaged ones."""
    try:
        found = cache_file.read(path, (num_files, *_shape(preprocessing)))
    except cache_file.DamagedError as error:
        logger.warning("%s is damaged (%s): decoding the images anew", path, error)
        with contextlib.suppress(OSError):
            cache_file.remove(path)
        return None
    return None if found is None else (torch.from_numpy(found[0]), found[1])


def _is_readable_now(path: Path, preprocessing: Preprocessing) -> bool:
    try:
        decode_image(path, preprocessing)
    except UnreadableImageError:
        return False
    return True


def _key(paths: Sequence[Path], preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256()
    settings = [
        FORMAT_VERSION,
        PIL.__version__,
        preprocessing.image_size,
        preprocessing.channels,
        preprocessing.fit,
    ]
    digest.update(json.dumps(settings).encode())
    for path in paths:
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except OSError:  # reported as a bad image when it is decoded
            stamp = (-1, -1)
        digest.update(os.fsencode(f"\0{path.absolute()}\0{stamp[0]}\0{stamp[1]}"))
    return digest.hexdigest()[:32]
