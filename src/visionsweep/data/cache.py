"""Many image files -> one uint8 tensor, decoded once into a memory-mapped file that all runs share."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch import Tensor

from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import UnreadableImageError, decode_image
from visionsweep.data.paths import absolute, default_cache_dir
from visionsweep.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

OnBadImage = Literal["error", "skip"]
FORMAT_VERSION = 1  # raise it when decoding or the file's layout changes
CHUNK = (
    64  # images a task: small enough to share out evenly, large enough that the queue costs nothing
)


@dataclass(frozen=True)
class DecodedImages:
    """Decoded files; the i-th image comes from the file with index kept[i]."""

    images: Tensor  # (len(kept), C, H, W) uint8; writes to a mapped one stay private to the process
    kept: list[int]
    bad: list[tuple[str, str]]  # path and reason of each file left out


def decode_all(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    on_bad_image: OnBadImage,
    cache_dir: str | None,
) -> DecodedImages:
    """Decode the files, or open what an earlier or a parallel run decoded.

    `cache_dir` None is the user's cache folder, "none" memory only. When a file changes (size or time), the
    whole list is decoded anew. DataError for unreadable files unless on_bad_image is skip.
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
    return DecodedImages(
        images, kept, [(str(paths[index]), reason) for index, reason in bad.items()]
    )


def _report(paths: Sequence[Path], bad: dict[int, str], on_bad_image: OnBadImage) -> None:
    if not bad:
        return
    index, reason = next(iter(bad.items()))
    line = f"cannot read {paths[index]} ({reason}); {len(bad):,} of {len(paths):,} files"
    if on_bad_image == "error":
        raise DataError(f"{line}. Fix it, or data.on_bad_image=skip")
    if len(bad) == len(paths):
        raise DataError(f"{line}: no image is left")
    logger.warning("%s left out (data.on_bad_image=skip)", line)


def _decode_chunks(
    paths: Sequence[Path], preprocessing: Preprocessing
) -> Iterator[tuple[npt.NDArray[np.uint8], dict[int, str]]]:
    """Chunks in the order of `paths`: what could be read, and by index why the rest could not."""

    def decode_chunk(start: int) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
        images, bad = [], {}
        for index in range(start, min(start + CHUNK, len(paths))):
            try:
                images.append(decode_image(paths[index], preprocessing))
            except UnreadableImageError as error:
                bad[index] = error.reason
        shape = (len(images), preprocessing.channels, *preprocessing.image_size)
        return np.array(images, dtype=np.uint8).reshape(shape), bad

    with ThreadPoolExecutor(_num_cores()) as executor:  # Pillow releases the GIL
        yield from executor.map(decode_chunk, range(0, len(paths), CHUNK))


def _num_cores() -> int:
    # Linux: what this process may use, which can be less than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode_to_memory(
    paths: Sequence[Path], preprocessing: Preprocessing
) -> tuple[Tensor, dict[int, str]]:
    start, count, bad = time.perf_counter(), 0, {}
    images = np.empty(
        (len(paths), preprocessing.channels, *preprocessing.image_size), dtype=np.uint8
    )
    for chunk, chunk_bad in _decode_chunks(paths, preprocessing):
        images[count : count + len(chunk)] = chunk
        count += len(chunk)
        bad.update(chunk_bad)
    _log_decoded(count, preprocessing, start, "kept in memory (data.cache_dir=none)")
    return torch.from_numpy(images[:count]), bad


def _log_decoded(count: int, preprocessing: Preprocessing, start: float, where: str) -> None:
    shape = "x".join(map(str, (preprocessing.channels, *preprocessing.image_size)))
    logger.info(
        "decoded %s images to %s in %.1f s; %s",
        f"{count:,}",
        shape,
        time.perf_counter() - start,
        where,
    )


def _open_or_build(
    folder: Path, paths: Sequence[Path], preprocessing: Preprocessing
) -> tuple[Tensor, dict[int, str]]:
    array_path = folder / f"{_key(paths, preprocessing)}.npy"
    found = _open(array_path, len(paths))
    if found is not None and any(
        _is_readable_now(paths[index], preprocessing) for index in found[1]
    ):
        array_path.unlink(missing_ok=True)  # a network folder was away, or permissions were wrong
        found = None
    if found is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(array_path.with_suffix(".lock")):
                # Another process may have built it while this one waited.
                if _open(array_path, len(paths)) is None:
                    _build(array_path, paths, preprocessing)
        except OSError as error:
            raise DataError(
                f"data.cache_dir: cannot write {array_path} ({error.strerror or error}). "
                "Set data.cache_dir=FOLDER, or data.cache_dir=none to keep images in memory"
            ) from error
        found = _open(array_path, len(paths))
        if found is None:
            raise DataError(
                f"data.cache_dir: {array_path} vanished while it was opened. Start again"
            )
    return found


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


def _open(array_path: Path, num_files: int) -> tuple[Tensor, dict[int, str]] | None:
    """What is cached, or None when it is missing, incomplete or damaged."""
    try:
        bad = {
            int(index): reason
            for index, reason in json.loads(_bad_path(array_path).read_text()).items()
        }
        if len(bad) == num_files:
            return torch.empty(0, dtype=torch.uint8), bad
        # Copy-on-write: the pages are shared until written to, and torch accepts the array as writable.
        array = np.load(array_path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if array.dtype != np.uint8 or len(array) + len(bad) != num_files:
        return None
    return torch.from_numpy(array), bad


def _bad_path(array_path: Path) -> Path:
    return array_path.with_suffix(".json")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock, which the system drops when the process dies."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build(array_path: Path, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
    start = time.perf_counter()
    sample_shape = (preprocessing.channels, *preprocessing.image_size)
    with _replacing(array_path) as stream:
        # Now for its length only: NumPy leaves room for any number of rows, so the final one fits.
        _write_header(stream, (len(paths), *sample_shape))
        data_start, count, bad = stream.tell(), 0, {}
        for chunk, chunk_bad in _decode_chunks(paths, preprocessing):
            stream.write(chunk.tobytes())
            count += len(chunk)
            bad.update(chunk_bad)
        stream.seek(0)
        _write_header(stream, (count, *sample_shape))
        assert stream.tell() == data_start
        # Before the array appears: an array is complete only with its list of bad files.
        with _replacing(_bad_path(array_path)) as bad_stream:
            bad_stream.write(json.dumps(bad).encode())
    _log_decoded(count, preprocessing, start, f"cached in {array_path}")


def _write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the name `path` at the end, at once and complete, or not at all."""
    # One name a target: under the lock, what a killed process left is overwritten instead of piling up.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
