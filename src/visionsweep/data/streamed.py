"""Images that are decoded anew whenever they are needed, since decoded they are too many to keep.

`StreamedImages` takes the place of a tensor (N, C, H, W) uint8: the same rows, bit for bit. What a
run needs to know of all pixels before it starts was noted when they were decoded once, see
`scan_file`.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from visionsweep.errors import DataError
from visionsweep.machine import count_own_cores

CHUNK = 64  # images decoded at a time to go through all
PREFETCH = 2  # batches per process that are decoded ahead
PR_SET_PDEATHSIG = 1  # of Linux's prctl

# path -> (C, H, W) uint8. Raises DataError.
Decode = Callable[[Path], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class PixelSums:
    """What is known of the pixels of each image."""

    sums: npt.NDArray[np.int64]  # (N, C)
    squares: npt.NDArray[np.int64]  # (N, C) sums of squares
    checksums: npt.NDArray[np.uint32]  # (N,) CRC-32


class StreamedImages:
    """Stands for a tensor (N, C, H, W) uint8 on the CPU; rows are decoded when asked for."""

    device = torch.device("cpu")
    dtype = torch.uint8

    def __init__(
        self,
        paths: Sequence[Path],
        image_shape: tuple[int, int, int],
        decode: Decode,
        pixels: PixelSums,
        workers: int | None = None,
    ) -> None:
        """``workers``: processes that decode ahead; None: one per core of this run."""
        self.paths = paths
        self.shape = torch.Size((len(paths), *image_shape))
        self.pixels = pixels
        self.workers = count_own_cores() if workers is None else workers
        self._decode = decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the images of `rows` (n,) int64. Raises `DataError` if a file has changed."""
        from visionsweep.data.library_noise import quiet_libraries  # Pillow, not for all data

        # Pillow releases the GIL
        with quiet_libraries(), ThreadPoolExecutor(count_own_cores()) as executor:
            images = list(executor.map(self.decode, rows.tolist()))
        return torch.from_numpy(np.array(images, dtype=np.uint8).reshape(-1, *self.shape[1:]))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the images in order."""
        for images in self.batches(torch.split(torch.arange(len(self)), CHUNK)):
            yield from images

    def decode(self, row: int) -> npt.NDArray[np.uint8]:
        """Return an image. Raises `DataError` if it cannot be read, or has changed."""
        image = self._decode(self.paths[row])
        if zlib.crc32(image.data) != self.pixels.checksums[row]:
            raise DataError(
                f"{self.paths[row]} has changed since it was first decoded; restore it, or start "
                "a new run"
            )
        return image

    def batches(self, rows: Sequence[Tensor], *, pin_memory: bool = False) -> Iterator[Tensor]:
        """Yield the images of each element of `rows`, decoded ahead by other processes.

        Raises `DataError` if a file cannot be read, or has changed.
        """
        with warnings.catch_warnings():
            # More processes than cores: on a network drive they pay.
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            loader = DataLoader(
                _Rows(self),
                batch_sampler=[each.tolist() for each in rows],
                collate_fn=_as_they_are,
                num_workers=self.workers,
                prefetch_factor=PREFETCH if self.workers else None,
                worker_init_fn=_start_worker,
                generator=torch.Generator(),  # the global one belongs to the model
                # Forked: nothing is imported again, and the list of files is shared.
                multiprocessing_context="fork" if self.workers else None,
                pin_memory=pin_memory,
            )
            batches = iter(loader)
        for images, error in batches:
            if error is not None:
                raise DataError(error)
            yield images


Images = Tensor | StreamedImages  # (N, C, H, W) uint8


class _Rows(Dataset[Tensor]):
    """Images by lists of rows, for the processes of a DataLoader."""

    def __init__(self, images: StreamedImages) -> None:
        self._images = images

    def __getitems__(self, rows: list[int]) -> tuple[Tensor | None, str | None]:
        """Return the images, or why there are none: another process cannot raise our errors."""
        from visionsweep.data.library_noise import quiet_libraries

        try:
            with quiet_libraries():
                images = np.stack([self._images.decode(row) for row in rows])
            return torch.from_numpy(images), None
        except DataError as error:
            return None, str(error)


def _as_they_are(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    # Ctrl-C reaches all processes of a terminal; this one ends with its parent, ...
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ... however that ends, and frees the locks of its files. Otherwise it takes 5 seconds.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # it died before the line above
        os._exit(1)
