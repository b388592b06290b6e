"""A digest of a set of images, so that two records show whether they saw the same ones."""

import hashlib
import math
import zlib

import numpy as np
import numpy.typing as npt
import torch

from visionsweep.data.dataset import ImageSet
from visionsweep.data.streamed import Images, StreamedImages

VERSION = 3  # digests of different versions differ for the same images
MAX_BYTES = 1_000_000_000  # of pixels
CHUNK_BYTES = 1 << 20  # gathered at a time


def content_digest(images: ImageSet, indices: np.ndarray) -> str:
    """Return 16 hex digits: a hash of the ids, labels and pixels of the rows `indices`, in order.

    Of more than MAX_BYTES of pixels, only those of evenly spaced rows count.
    """
    digest = hashlib.blake2b(digest_size=8)
    ids = "".join(f"{images.ids[index]}\0" for index in indices.tolist())
    digest.update(ids.encode(errors="surrogateescape"))
    digest.update(images.targets.numpy()[indices].astype("<i8").tobytes())
    row_bytes = math.prod(images.images.shape[1:])
    count = min(len(indices), max(1, MAX_BYTES // row_bytes))
    rows = indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)]
    digest.update(checksums(images.images, rows).astype("<u4").tobytes())
    return digest.hexdigest()


def checksums(images: Images, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of the pixels of each of `rows`: faster than a hash."""
    if isinstance(images, StreamedImages):
        return images.pixels.checksums[rows]
    step = max(1, CHUNK_BYTES // math.prod(images.shape[1:]))
    parts = [
        [zlib.crc32(image) for image in images[torch.from_numpy(chunk)].contiguous().numpy()]
        for chunk in np.split(rows, range(step, len(rows), step))
    ]
    return np.array([checksum for part in parts for checksum in part], dtype=np.uint32)


# Digests of the last arrays: the trials of a worker share them.
_pixels: dict[int, tuple[Images, str]] = {}
MAX_REMEMBERED = 4


def pixel_digest(images: Images) -> str:
    """Return 32 hex digits: a hash of all pixels, (N, C, H, W) uint8, and of their shape.

    Of streamed images it is one of their checksums.
    """
    if id(images) not in _pixels:
        digest = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=16)
        if isinstance(images, StreamedImages):
            digest.update(images.pixels.checksums.data)
        else:
            step = max(1, CHUNK_BYTES // max(1, images[0].numel()))
            for chunk in torch.split(images, step):
                digest.update(chunk.cpu().contiguous().numpy().data)
        while len(_pixels) >= MAX_REMEMBERED:
            del _pixels[next(iter(_pixels))]
        _pixels[id(images)] = images, digest.hexdigest()
    return _pixels[id(images)][1]
