"""Many image files -> one uint8 tensor, decoded once for all runs."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import PIL
import torch
from torch import Tensor

from visionsweep.data import cache_file
from visionsweep.data.dataset import AUTO, Preprocessing
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
from visionsweep.errors import ConfigError, DataError
from visionsweep.rundir.lock import lock_file

logger = logging.getLogger(__name__)

FORMAT_VERSION = 4  # raise it when decoding or the file's layout changes


@dataclass(frozen=True)
class DecodedImages:
    """Decoded files; the i-th image comes from the file with index kept[i]."""

    images: Tensor  # (len(kept), C, H, W) uint8; writes to a memory map stay in this process
    kept: list[int]
    paths: list[Path]  # of the images
    bad: list[str]  # paths of the files left out
    digests: list[str]  # of the files' bytes, one per image
    preprocessing: Preprocessing  # with the levels that AUTO found


def decode_all(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    on_bad_image: OnBadImage,
    cache_dir: str | None,
    *,
    is_again: bool = False,
) -> DecodedImages:
    """Decode the files, or open what an earlier or a parallel run decoded.

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
    if cache_dir == "none":
        images, findings = _decode_to_memory(files)
    else:
        folder = default_cache_dir() if cache_dir is None else absolute("data.cache_dir", cache_dir)
        images, findings = _open_or_build(folder, files)
    report_bad(paths, findings, on_bad_image)
    if not is_again:
        report_repaired(paths, findings)
        report_pixels(paths, findings)
    if preprocessing.levels == AUTO:
        preprocessing = replace(preprocessing, levels=findings.levels)
    kept = [index for index in range(len(paths)) if index not in findings.bad]
    return DecodedImages(
        images,
        kept,
        [paths[index] for index in kept],
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


def _decode_to_memory(files: _Files) -> tuple[Tensor, Findings]:
    findings = Findings()
    try:
        return _fill_memory(files, findings), findings
    except UnknownLevelsError:
        findings = measure_all_levels(files.paths, files.preprocessing)
        return _fill_memory(files.with_levels(findings.levels), findings), findings


def _fill_memory(files: _Files, findings: Findings) -> Tensor:
    count = 0
    images = np.empty(files.shape, dtype=np.uint8)
    for chunk in decode_chunks(files.paths, files.preprocessing, findings, repair=files.repair):
        images[count : count + len(chunk)] = chunk
        count += len(chunk)
    return torch.from_numpy(images[:count])


def _open_or_build(folder: Path, files: _Files) -> tuple[Tensor, Findings]:
    path = folder / f"{files.key()}.npy"
    found = _open(path, files)
    if found is not None and _is_any_readable_now(files, found[1].bad):
        # A network folder was away, or permissions were wrong.
        cache_file.remove(path)
        found = None
    if found is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with lock_file(path.with_suffix(".lock")):
                # Another process may have built it while this one waited.
                if _open(path, files) is None:
                    _build(path, files)
                    logger.info("cached decoded images in %s", path)
        except OSError as error:
            raise DataError(
                f"data.cache_dir: cannot write {path} ({error.strerror or error}). "
                "Set data.cache_dir=FOLDER, or data.cache_dir=none to keep images in memory"
            ) from error
        found = _open(path, files)
        if found is None:
            raise DataError(
                f"data.cache_dir: {path} vanished while it was being opened; start again"
            )
    return found


def _build(path: Path, files: _Files) -> None:
    findings = Findings()
    try:
        _write(path, files, findings)
    except UnknownLevelsError:
        findings = measure_all_levels(files.paths, files.preprocessing)
        _write(path, files.with_levels(findings.levels), findings)


def _write(path: Path, files: _Files, findings: Findings) -> None:
    chunks = decode_chunks(files.paths, files.preprocessing, findings, repair=files.repair)
    cache_file.write(path, files.shape, chunks, findings)


def _open(path: Path, files: _Files) -> tuple[Tensor, Findings] | None:
    """Return images and findings from the cache; None if there are none, or damaged ones."""
    try:
        found = cache_file.read(path, files.shape)
    except cache_file.DamagedError as error:
        logger.warning("%s is damaged (%s): decoding the images anew", path, error)
        with contextlib.suppress(OSError):
            cache_file.remove(path)
        return None
    return None if found is None else (torch.from_numpy(found[0]), found[1])


def _is_any_readable_now(files: _Files, bad: Iterable[int]) -> bool:
    with quiet_libraries():
        return any(
            is_readable(files.paths[index], files.preprocessing, repair=files.repair)
            for index in bad
        )
