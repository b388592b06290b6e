"""A short name for the content of a set of images, so that two records show whether they saw the same ones."""

import hashlib

import numpy as np

from visionsweep.data.dataset import ImageSet

MAX_BYTES = 16_000_000  # of pixels: a millisecond each few megabytes, at each start of a run


def content_digest(images: ImageSet, indices: np.ndarray) -> str:
    """Return 16 hex digits of the ids and labels of the rows `indices`, in order, and of pixels.

    All pixels count in up to 16 MB, in more those of evenly spread rows.
    """
    digest = hashlib.blake2b(digest_size=8)
    for index in indices.tolist():
        digest.update(f"{images.ids[index]}\0".encode(errors="surrogateescape"))
    digest.update(images.targets.numpy()[indices].astype("<i8").tobytes())
    row_bytes = images.images[0].numel()
    count = min(len(indices), max(1, MAX_BYTES // row_bytes))
    for index in indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)].tolist():
        digest.update(images.images[index].contiguous().numpy().tobytes())
    return digest.hexdigest()
