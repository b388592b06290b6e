"""Image files -> probabilities: the mean over views and networks.

Threads decode the next images while the networks compute. Sums of floats depend on the size of a
batch in their last bits, so the networks always compute CHUNK images at a time, image i of the list
at place i modulo CHUNK: what is predicted for an image depends on nothing but the image.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import Decoded, decode_file
from visionsweep.data.library_noise import quiet_libraries
from visionsweep.data.open_image import UnreadableImageError
from visionsweep.errors import ConfigError, DataError
from visionsweep.machine import count_cores
from visionsweep.predict.arguments import OnBadImage
from visionsweep.predict.views import VIEWS
from visionsweep.training.devices import choose_memory_format
from visionsweep.training.predictor import Predictor, WeightedPredictor

FILLING = ("fill", "repair")  # on_bad_image: what cannot be decoded gets the class frequencies
PREFETCH = 2  # batches decoded ahead; more only take memory
CHUNK = 16  # images of a forward pass; on a CPU as fast as 128 (benchmarks/predict_batch.py)


def check_runs(
    members: Sequence[WeightedPredictor],
    tta: Sequence[str] = ("none",),
    on_bad_image: OnBadImage = "error",
) -> None:
    """Raise `ConfigError` unless the runs agree in their classes and allow the arguments."""
    first = members[0]
    for member in members:
        predictor = member.predictor
        if predictor.class_names != first.predictor.class_names:
            raise ConfigError(
                "run: cannot average runs of different classes: "
                f"{first.directory} has {_listed(first.predictor.class_names)}, "
                f"{member.directory} has {_listed(predictor.class_names)}"
            )
        if "flip" in tta and not predictor.flips:
            raise ConfigError(
                f"tta: flip is not allowed for {member.directory}: a mirrored image of its data "
                "set has another label (flips: false); set tta=none"
            )
        if on_bad_image in FILLING and predictor.class_counts is None:
            raise ConfigError(
                f"on_bad_image: {on_bad_image} needs the class frequencies of {member.directory}, "
                "which a run of an earlier version does not have; set on_bad_image=skip"
            )


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


@dataclass(frozen=True)
class PredictedBatch:
    """The next images in their order."""

    probabilities: Tensor  # (B, K) float64
    bad: dict[int, str]  # row of each unreadable image -> reason
    repaired: dict[int, str]  # row of each image with missing pixels -> reason


@torch.inference_mode()
def predict(
    paths: Sequence[Path],
    members: Sequence[WeightedPredictor],
    *,
    batch_size: int,
    device: str,
    tta: Sequence[str] = ("none",),
    on_bad_image: OnBadImage = "error",
) -> Iterator[PredictedBatch]:
    """Yield the probabilities of the images, CHUNK at a time: the weighted mean over the members.

    Images are decoded once per distinct preprocessing, ``batch_size`` at a time (rounded up to
    chunks). ``tta``: names of `VIEWS`. What cannot be read gets the `class_prior` of the runs; with
    on_bad_image=repair, only that of which nothing can be decoded. With on_bad_image=error nothing
    more is predicted after such an image, but the rest is read: the `DataError` counts all of them.
    """
    fill = class_prior(members) if on_bad_image in FILLING else 0.0
    repair = on_bad_image == "repair"
    unreadable: list[str] = []
    memory_format, _ = choose_memory_format("auto", torch.device(device))
    groups: dict[Preprocessing, list[WeightedPredictor]] = {}
    for member in members:
        member.predictor.to(memory_format=memory_format)
        groups.setdefault(member.predictor.preprocessing, []).append(member)
    num_classes = len(members[0].predictor.class_names)
    at_a_time = CHUNK * -(-batch_size // CHUNK)
    decoded = [_chunks(decoded_batches(paths, p, at_a_time, repair=repair)) for p in groups]
    start = 0
    for chunks in zip(*decoded, strict=True):
        bad = {row: reason for chunk in chunks for row, reason in chunk.bad.items()}
        unreadable += [f"{paths[start + row]} ({reason})" for row, reason in bad.items()]
        start += chunks[0].size
        if unreadable and on_bad_image == "error":
            continue
        total = torch.zeros(CHUNK, num_classes, dtype=torch.float64)
        for chunk, group in zip(chunks, groups.values(), strict=True):
            images = chunk.images.to(device)
            for member in group:
                total += member.weight * _probabilities(member.predictor, images, tta)
        total[list(bad)] = fill
        yield PredictedBatch(total[: chunks[0].size], bad, chunks[0].repaired)
    if len(unreadable) == len(paths) or (unreadable and on_bad_image == "error"):
        problem = f"cannot read {unreadable[0]}; {len(unreadable):,} of {len(paths):,} images"
        if len(unreadable) == len(paths):
            raise DataError(f"{problem}: no image is left; correct data.predict")
        raise DataError(
            f"{problem}. Every image needs a row: repair the file, or set on_bad_image=skip (no "
            "row), on_bad_image=fill (the class frequencies of the training images) or "
            "on_bad_image=repair (what can be decoded)"
        )


def class_prior(members: Sequence[WeightedPredictor]) -> Tensor:
    """Return the (K,) float64 shares of the classes among the training images of the runs.

    With nothing known of an image, the answer with the best expected log loss and accuracy.
    """
    shares = []
    for member in members:
        assert member.predictor.class_counts is not None  # see check_runs
        counts = torch.tensor(member.predictor.class_counts, dtype=torch.float64)
        shares.append(counts / counts.sum() * member.weight)
    return torch.stack(shares).sum(dim=0)


def _probabilities(predictor: Predictor, images: Tensor, tta: Sequence[str]) -> Tensor:
    """Return the (CHUNK, K) float64 mean over the views, on the CPU."""
    total = torch.zeros(len(images), len(predictor.class_names), dtype=torch.float64)
    for name in tta:
        views = VIEWS[name](images)
        for view in views:
            total += predictor(view).to("cpu", torch.float64) / len(views)
    return total / len(tta)


@dataclass(frozen=True)
class DecodedBatch:
    """Image files, decoded."""

    size: int  # the number of files
    images: Tensor  # (B, C, H, W) uint8; zeros for what could not be read, and after the last one
    bad: dict[int, str]  # row of each file that could not be read -> reason
    repaired: dict[int, str]  # row of each file with missing pixels -> reason


def decoded_batches(
    paths: Sequence[Path], preprocessing: Preprocessing, batch_size: int, *, repair: bool = False
) -> Iterator[DecodedBatch]:
    """Yield the images in their order, ``batch_size`` at a time."""
    # Pillow releases the GIL
    with quiet_libraries(), ThreadPoolExecutor(count_cores()) as executor:
        pending: deque[list[Future[Decoded]]] = deque()
        for start in range(0, len(paths), batch_size):
            pending.append(
                [
                    executor.submit(decode_file, p, preprocessing, repair=repair)
                    for p in paths[start : start + batch_size]
                ]
            )
            is_last = start + batch_size >= len(paths)
            while pending and (is_last or len(pending) > PREFETCH):
                yield _collect(pending.popleft(), preprocessing)


def _collect(futures: Sequence[Future[Decoded]], preprocessing: Preprocessing) -> DecodedBatch:
    shape = (len(futures), preprocessing.channels, *preprocessing.image_size)
    pixels = np.zeros(shape, dtype=np.uint8)
    bad, repaired = {}, {}
    for row, future in enumerate(futures):
        try:
            decoded = future.result()
            pixels[row] = decoded.pixels
            if decoded.damage is not None:
                repaired[row] = decoded.damage
        except UnreadableImageError as error:
            bad[row] = error.reason
    return DecodedBatch(len(futures), torch.from_numpy(pixels), bad, repaired)


def _chunks(batches: Iterator[DecodedBatch]) -> Iterator[DecodedBatch]:
    """Cut batches into chunks; the last one is filled up with images of zeros."""
    for batch in batches:
        for start in range(0, batch.size, CHUNK):
            rows = range(start, min(start + CHUNK, batch.size))
            images = batch.images.new_zeros(CHUNK, *batch.images.shape[1:])
            images[: len(rows)] = batch.images[rows.start : rows.stop]
            bad, repaired = (
                {row - start: reason for row, reason in found.items() if row in rows}
                for found in (batch.bad, batch.repaired)
            )
            yield DecodedBatch(len(rows), images, bad, repaired)
