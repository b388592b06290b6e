"""The file of decoded images or of features: a memory-mapped .npy, and a .json beside it.

The .json holds the checksums of the images, the hashes of the files, and what else was found.

The checksums find what a disk, a copy or another process damaged. Each start reads up to
MAX_CHECKED_BYTES of the images, pages that training reads anyway; of a larger file, evenly spaced
blocks.
"""

import contextlib
import errno
import json
import math
import os
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionsweep.data.findings import Findings
from visionsweep.data.shared_file import DamagedError
from visionsweep.machine import count_cores
from visionsweep.rundir.atomic import atomic_write, write_text

SUFFIX = ".npy"
CONTENTS = "decoded images"
BLOCK_BYTES = 4_000_000  # per checksum
MAX_CHECKED_BYTES = 4_000_000_000
LEFTOVER_SECONDS = 3600.0  # a temporary file that nobody has written to for so long is dead

Rows = npt.NDArray[Any]  # decoded images (uint8), or features of images (float32)


def read(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8
) -> tuple[Rows, Findings] | None:
    """Return the rows of an array of `shape`, without the bad ones at its end, and the findings.

    None if the file is missing or was not finished. Raises `DamagedError`.
    """
    try:
        contents = json.loads(_beside(path).read_bytes())
        findings = Findings.of_json(contents["findings"])
        checksums = list(contents["crc32"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{_beside(path).name} is not readable") from error
    try:
        count = _num_blocks(path)
        most = MAX_CHECKED_BYTES // BLOCK_BYTES
        checked = np.linspace(0, count - 1, min(count, most)).astype(int).tolist()
        is_whole = len(checksums) == count
        if not is_whole or _checksums(path, checked) != [checksums[block] for block in checked]:
            raise DamagedError("wrong checksum")
        array = _map(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise DamagedError(str(error)) from error
    if array.dtype != dtype or array.shape != shape:
        raise DamagedError(
            f"expected {dtype.__name__} of shape {shape}, got {array.dtype} of {array.shape}"
        )
    return array[: shape[0] - len(findings.bad)], findings


def write(
    path: Path,
    shape: tuple[int, ...],
    chunks: Iterable[Rows],
    findings: Findings,
    dtype: type[np.generic] = np.uint8,
) -> None:
    """Write an array of `shape`: the chunks, then zeros for the bad images that they lack.

    The chunks may fill `findings` while they are read.
    """
    _remove_leftovers(path)
    remove(path)
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    # Not a memory map: a full disk would kill the process instead of raising OSError.
    with atomic_write(path) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in chunks:
            stream.write(chunk.tobytes())
        for _ in findings.bad:
            stream.write(bytes(math.prod(shape[1:]) * np.dtype(dtype).itemsize))
    # Last: an array without its checksums is incomplete.
    checksums = _checksums(path, range(_num_blocks(path)))
    write_text(_beside(path), json.dumps({"findings": vars(findings), "crc32": checksums}))


def remove(path: Path) -> None:
    """Remove the file; a process that has it open keeps its images."""
    _beside(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _map(path: Path) -> Any:
    try:
        # Copy-on-write: pages are shared until written to, and torch takes the array as writable.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        if error.errno != errno.ENODEV:  # a file system without memory maps
            raise
        return np.load(path, allow_pickle=False)


def _num_blocks(path: Path) -> int:
    return -(-path.stat().st_size // BLOCK_BYTES)


def _checksums(path: Path, blocks: Iterable[int]) -> list[int]:
    # Not from the memory map: there, a sector that cannot be read kills the process.
    with path.open("rb") as file, ThreadPoolExecutor(count_cores()) as executor:

        def checksum(block: int) -> int:
            return zlib.crc32(os.pread(file.fileno(), BLOCK_BYTES, block * BLOCK_BYTES))

        return list(executor.map(checksum, blocks))  # both release the GIL


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of killed processes, each as large as the images."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.lstat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()
