"""A short name for the content of a set of images, so that two records show whether they saw the same ones."""

import hashlib

import numpy as np
import torch

from visionsweep.data.dataset import ImageSet

MAX_BYTES = 16_000_000  # of pixels: a millisecond each few megabytes, at each start of a run
CHUNK_BYTES = 1 << 20  # gathered at a time


def content_digest(images: ImageSet, indices: np.ndarray) -> str:
    """Return 16 hex digits of the ids and labels of the rows `indices`, in order, and of pixels.

    All pixels count in up to 16 MB, in more those of evenly spread rows.
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
        digest.update(images.images[torch.from_numpy(rows[start : start + step])].numpy().tobytes())
    return digest.hexdigest()
