"""A digest of a set of images, so that two records show whether they saw the same ones."""

import hashlib
import zlib

import numpy as np
import torch
from torch import Tensor

from visionsweep.data.dataset import ImageSet

VERSION = 2  # digests of different versions differ for the same images
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
    row_bytes = images.images[0].numel()
    count = min(len(indices), max(1, MAX_BYTES // row_bytes))
    rows = indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)]
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, count, step):
        pixels = images.images[torch.from_numpy(rows[start : start + step])].contiguous().numpy()
        digest.update(zlib.crc32(pixels.data).to_bytes(4))  # faster than a hash
    return digest.hexdigest()


# Digests of the last arrays: the trials of a worker share them.
_pixels: dict[int, tuple[Tensor, str]] = {}
MAX_REMEMBERED = 4


def pixel_digest(images: Tensor) -> str:
    """Return 32 hex digits: a hash of all pixels, (N, C, H, W) uint8, and of their shape."""
    if id(images) not in _pixels:
        digest = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=16)
        step = max(1, CHUNK_BYTES // max(1, images[0].numel()))
        for chunk in torch.split(images, step):
            digest.update(chunk.cpu().contiguous().numpy().data)
        while len(_pixels) >= MAX_REMEMBERED:
            del _pixels[next(iter(_pixels))]
        _pixels[id(images)] = images, digest.hexdigest()
    return _pixels[id(images)][1]
