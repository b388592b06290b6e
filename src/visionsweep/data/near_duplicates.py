"""Images that look alike, such as a photograph saved twice, by a perceptual hash."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionsweep.data.streamed import Images

MAX_COMPARED = 1 << 24  # pairs of hashes at a time

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def find_near_duplicates(images: Images, distance: int, others: Images | None = None) -> Indices:
    """Return pairs (P, 2) of similar images, i < j; with `others`, i of `images` and j of those.

    ``images``: (N, C, H, W) uint8. They are similar if their perceptual hashes of 64 bits differ in
    at most `distance` bits (imagehash.phash: the signs of the lowest frequencies around their
    median).
    """
    hashes = _hashes(images)
    other_hashes = hashes if others is None else _hashes(others)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start, distances in _distances(hashes, other_hashes):
        rows, columns = np.nonzero(distances <= distance)
        pairs = np.column_stack([rows + start, columns])
        found.append(pairs if others is not None else pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def _hashes(images: Images) -> Hashes:
    from imagehash import phash  # scipy takes a while

    hashes = np.empty(len(images), dtype=np.uint64)
    for index, image in enumerate(images):
        pixels = image.permute(1, 2, 0).numpy()
        bits = phash(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).hash
        hashes[index] = np.packbits(bits).view(">u8")[0]
    return hashes


def _distances(hashes: Hashes, others: Hashes) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield blocks of rows of the (N, M) differing bits, with the number of their first row."""
    step = max(1, MAX_COMPARED // max(1, len(others)))
    for start in range(0, len(hashes), step):
        yield start, np.bitwise_count(hashes[start : start + step, None] ^ others[None])
