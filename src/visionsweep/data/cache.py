"""Many image files -> one uint8 tensor, decoded once for all runs."""

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import PIL
import torch

from visionsweep.data import cache_file, scan_file
from visionsweep.data.dataset import AUTO, Preprocessing
from visionsweep.data.decode import decode_image
from visionsweep.data.decode_files import (
    decode_chunks,
    is_readable,
    measure_all_levels,
    shape_of,
)
from visionsweep.data.findings import (
    Findings,
    OnBadImage,
    report_bad,
    report_pixels,
    report_repaired,
)
from visionsweep.data.levels import UnknownLevelsError
from visionsweep.data.library_noise import quiet_libraries
from visionsweep.data.paths import absolute, default_cache_dir
from visionsweep.data.shared_file import open_or_build
from visionsweep.data.streamed import Images, PixelSums, StreamedImages
from visionsweep.errors import ConfigError, DataError
from visionsweep.machine import count_own_cores
from visionsweep.text import counted

logger = logging.getLogger(__name__)

_Pixels = npt.NDArray[np.uint8]
_T = TypeVar("_T")
FORMAT_VERSION = 4  # raise it when decoding or the file's layout changes


@dataclass(frozen=True)
class DecodedImages:
    """Decoded files; the i-th image comes from the file with index kept[i]."""

    images: Images  # (len(kept), C, H, W) uint8; writes to a memory map stay in this process
    kept: list[int]
    paths: list[Path]  # of the images
    bad: list[str]  # paths of the files left out
    digests: list[str]  # of the files' bytes, one per image
    preprocessing: Preprocessing  # with the levels that AUTO found


@dataclass(frozen=True)
class Streaming:
    """When decoded images are too many to keep. Raises ConfigError for a wrong value."""

    limit_gb: float | None = None  # up to here they are kept; None: always
    workers: int | None = None  # processes that decode the others; None: one per core of the run
    num_images: int = 0  # of all parts of the data; 0: those that are decoded

    def __post_init__(self) -> None:
        if self.limit_gb is not None and not self.limit_gb >= 0:
            raise ConfigError(
                "data.cache_limit_gb: expected gigabytes, 0 or more, or null (no limit), got "
                f"{self.limit_gb}"
            )
        if self.workers is not None and self.workers < 0:
            raise ConfigError(
                f"data.workers: expected 0 or more processes, or null, got {self.workers}"
            )


def decode_all(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    on_bad_image: OnBadImage,
    cache_dir: str | None,
    *,
    is_again: bool = False,
    streaming: Streaming | None = None,
) -> DecodedImages:
    """Decode the files, or open what an earlier or a parallel run decoded.

    More images than `streaming` allows are decoded once to know them, and then whenever they are
    needed.

    `cache_dir` None is the user's cache folder, "none" memory only. If a file changes (size or
    times), all are decoded again. With `is_again` nothing is said of the images, as of the same
    ones at another size. Raises DataError for unreadable files if on_bad_image is error; skip
    leaves them out, repair only those of which nothing can be decoded.
    """
    if on_bad_image not in get_args(OnBadImage):
        raise ConfigError(
            f"data.on_bad_image: expected error, skip or repair, got {on_bad_image!r}"
        )
    if not paths:
        raise DataError("no image to decode")
    files = _Files(paths, preprocessing, repair=on_bad_image == "repair")
    folder = None
    if cache_dir != "none":
        folder = default_cache_dir() if cache_dir is None else absolute("data.cache_dir", cache_dir)
    is_streamed = _exceeds(files, streaming)
    if folder is not None:
        contents, findings = _open_or_build(folder, files, scan_file if is_streamed else cache_file)
    elif is_streamed:
        contents, findings = _decode(files, lambda chunks, _: scan_file.measure(chunks))
    else:
        contents, findings = _decode(files, lambda chunks, _: _concatenate(files.shape, chunks))
    report_bad(paths, findings, on_bad_image)
    if not is_again:
        report_repaired(paths, findings)
        report_pixels(paths, findings)
    if preprocessing.levels == AUTO:
        preprocessing = replace(preprocessing, levels=findings.levels)
    kept = [index for index in range(len(paths)) if index not in findings.bad]
    kept_paths = [paths[index] for index in kept]
    images: Images
    if is_streamed:
        assert streaming is not None
        files = replace(files, preprocessing=preprocessing)
        images = _stream(kept_paths, files, contents, streaming)
    else:
        images = torch.from_numpy(contents)
    return DecodedImages(
        images,
        kept,
        kept_paths,
        [str(paths[index]) for index in findings.bad],
        [findings.digests[index] for index in kept],
        preprocessing,
    )


@dataclass(frozen=True)
class _Files:
    """What is decoded, and how."""

    paths: Sequence[Path]
    preprocessing: Preprocessing
    repair: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.paths), *shape_of(self.preprocessing))

    def with_levels(self, levels: tuple[float, float] | None) -> "_Files":
        return replace(self, preprocessing=replace(self.preprocessing, levels=levels))

    def key(self) -> str:
        """Return a name that changes with the files and with how they are decoded."""
        digest = hashlib.sha256()
        settings = dataclasses.asdict(self.preprocessing)
        versions = [FORMAT_VERSION, PIL.__version__]
        digest.update(json.dumps([*versions, settings, self.repair]).encode())
        for path in self.paths:
            try:
                status = path.stat()
                # The time of the last change of the inode: unlike the others, no program sets it.
                stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            except OSError:  # reported as a bad image when it is decoded
                stamp = (-1, -1, -1)
            text = "\0".join(map(str, ("", path.absolute(), *stamp)))
            digest.update(os.fsencode(text))
        return digest.hexdigest()[:32]


def _decode(
    files: _Files, collect: Callable[[Iterable[_Pixels], Findings], _T]
) -> tuple[_T, Findings]:
    """Return what `collect` makes of the decoded chunks, and the findings."""
    findings = Findings()
    try:
        return collect(_chunks(files, findings), findings), findings
    except UnknownLevelsError:
        findings = measure_all_levels(files.paths, files.preprocessing)
        files = files.with_levels(findings.levels)
        return collect(_chunks(files, findings), findings), findings


def _chunks(files: _Files, findings: Findings) -> Iterator[_Pixels]:
    return decode_chunks(files.paths, files.preprocessing, findings, repair=files.repair)


def _concatenate(shape: tuple[int, ...], chunks: Iterable[_Pixels]) -> _Pixels:
    count = 0
    images = np.empty(shape, dtype=np.uint8)
    for chunk in chunks:
        images[count : count + len(chunk)] = chunk
        count += len(chunk)
    return images[:count]


class _Store(Protocol):
    """A module that keeps what came of the decoded images in a file."""

    SUFFIX: str
    CONTENTS: str
    read: Callable[[Path, tuple[int, ...]], tuple[Any, Findings] | None]
    write: Callable[[Path, tuple[int, ...], Iterable[_Pixels], Findings], None]
    remove: Callable[[Path], None]


def _open_or_build(folder: Path, files: _Files, store: _Store) -> tuple[Any, Findings]:
    path = folder / f"{files.key()}{store.SUFFIX}"

    def is_current(found: tuple[Any, Findings]) -> bool:
        # Else a network folder was away, or permissions were wrong.
        return not _is_any_readable_now(files, found[1].bad)

    return open_or_build(
        path,
        lambda: store.read(path, files.shape),
        lambda: _decode(files, functools.partial(store.write, path, files.shape)),
        lambda: store.remove(path),
        contents=store.CONTENTS,
        verb="decoding",
        noun="images",
        is_current=is_current,
    )


def _is_any_readable_now(files: _Files, bad: Iterable[int]) -> bool:
    with quiet_libraries():
        return any(
            is_readable(files.paths[index], files.preprocessing, repair=files.repair)
            for index in bad
        )


def _exceeds(files: _Files, streaming: Streaming | None) -> bool:
    """Return whether the images are too many to keep, and say so."""
    if streaming is None or streaming.limit_gb is None:
        return False
    num_images = streaming.num_images or len(files.paths)
    size = num_images * math.prod(files.shape[1:]) / 1e9
    if size <= streaming.limit_gb:
        return False
    workers = count_own_cores() if streaming.workers is None else streaming.workers
    logger.info(
        "%s of %s take %.3g GB, more than data.cache_limit_gb=%g: decoded anew in each epoch by %s "
        "(data.workers)",
        counted(num_images, "image"),
        "x".join(map(str, files.shape[1:])),
        *(size, streaming.limit_gb),
        "the run itself" if workers == 0 else f"{workers} process{'es' if workers > 1 else ''}",
    )
    return True


def _stream(
    paths: Sequence[Path], files: _Files, pixels: PixelSums, streaming: Streaming
) -> StreamedImages:
    decode = functools.partial(decode_image, preprocessing=files.preprocessing, repair=files.repair)
    return StreamedImages(paths, shape_of(files.preprocessing), decode, pixels, streaming.workers)
