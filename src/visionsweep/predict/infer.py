"""Image files -> probabilities: the mean over flips and runs.

Threads decode the next images while the networks compute.
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
from visionsweep.predict.arguments import TTA, OnBadImage
from visionsweep.training.devices import choose_memory_format
from visionsweep.training.predictor import Predictor

FILLING = ("fill", "repair")  # on_bad_image: what cannot be decoded gets the class frequencies
PREFETCH = 2  # batches decoded ahead; more only take memory


def check_runs(
    run_dirs: Sequence[Path],
    predictors: Sequence[Predictor],
    tta: TTA,
    on_bad_image: OnBadImage = "error",
) -> None:
    """Raise `ConfigError` unless the runs agree in their classes and allow the arguments."""
    for run_dir, predictor in zip(run_dirs, predictors, strict=True):
        if predictor.class_names != predictors[0].class_names:
            raise ConfigError(
                "run: cannot average runs of different classes: "
                f"{run_dirs[0]} has {_listed(predictors[0].class_names)}, "
                f"{run_dir} has {_listed(predictor.class_names)}"
            )
        if tta == "flip" and not predictor.flips:
            raise ConfigError(
                f"tta: flip is not allowed for {run_dir}: a mirrored image of its data set has "
                "another label (flips: false); set tta=none"
            )
        if on_bad_image in FILLING and predictor.class_counts is None:
            raise ConfigError(
                f"on_bad_image: {on_bad_image} needs the class frequencies of {run_dir}, which a "
                "run of an earlier version does not have; set on_bad_image=skip"
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
    predictors: Sequence[Predictor],
    *,
    batch_size: int,
    tta: TTA,
    device: str,
    on_bad_image: OnBadImage = "error",
) -> Iterator[PredictedBatch]:
    """Yield the probabilities of the images: the mean over the predictors.

    Images are decoded once per distinct preprocessing, a few batches at a time. What cannot be read
    gets the `class_prior` of the runs; with on_bad_image=repair, only that of which nothing can be
    decoded. With on_bad_image=error nothing more is predicted after such
    an image, but the rest is read: the `DataError` counts all of them.
    """
    fill = class_prior(predictors) if on_bad_image in FILLING else 0.0
    repair = on_bad_image == "repair"
    unreadable: list[str] = []
    memory_format, _ = choose_memory_format("auto", torch.device(device))
    groups: dict[Preprocessing, list[Predictor]] = {}
    for predictor in predictors:
        groups.setdefault(predictor.preprocessing, []).append(
            predictor.to(memory_format=memory_format)
        )
    num_classes = len(predictors[0].class_names)
    decoded = [decoded_batches(paths, each, batch_size, repair=repair) for each in groups]
    start = 0
    for batches in zip(*decoded, strict=True):
        bad = {row: reason for batch in batches for row, reason in batch.bad.items()}
        unreadable += [f"{paths[start + row]} ({reason})" for row, reason in bad.items()]
        start += batches[0].size
        if unreadable and on_bad_image == "error":
            continue
        total = torch.zeros(batches[0].size, num_classes, dtype=torch.float64)
        for batch, group in zip(batches, groups.values(), strict=True):
            rows = torch.tensor([row for row in range(batch.size) if row not in batch.bad])
            images = batch.images.to(device)
            for predictor in group if len(rows) else ():
                total[rows] += _probabilities(predictor, images, tta).to("cpu", torch.float64)
        total /= len(predictors)
        total[list(bad)] = fill
        yield PredictedBatch(total, bad, batches[0].repaired)
    if len(unreadable) == len(paths) or (unreadable and on_bad_image == "error"):
        problem = f"cannot read {unreadable[0]}; {len(unreadable):,} of {len(paths):,} images"
        if len(unreadable) == len(paths):
            raise DataError(f"{problem}: no image is left; correct data.predict")
        raise DataError(
            f"{problem}. Every image needs a row: repair the file, or set on_bad_image=skip (no "
            "row), on_bad_image=fill (the class frequencies of the training images) or "
            "on_bad_image=repair (what can be decoded)"
        )


def class_prior(predictors: Sequence[Predictor]) -> Tensor:
    """Return the (K,) float64 shares of the classes among the training images of the runs.

    With nothing known of an image, the answer with the best expected log loss and accuracy.
    """
    shares = []
    for predictor in predictors:
        assert predictor.class_counts is not None  # see check_runs
        counts = torch.tensor(predictor.class_counts, dtype=torch.float64)
        shares.append(counts / counts.sum())
    return torch.stack(shares).mean(dim=0)


def _probabilities(predictor: Predictor, images: Tensor, tta: TTA) -> Tensor:
    probabilities: Tensor = predictor(images)
    if tta == "flip":
        probabilities = (probabilities + predictor(images.flip(-1))) / 2
    return probabilities


@dataclass(frozen=True)
class DecodedBatch:
    """Image files, decoded."""

    size: int  # B, the number of files
    images: Tensor  # (B - len(bad), C, H, W) uint8, those that could be read
    bad: dict[int, str]  # row of each other file -> reason
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
    images, bad, repaired = [], {}, {}
    for row, future in enumerate(futures):
        try:
            decoded = future.result()
            images.append(decoded.pixels)
            if decoded.damage is not None:
                repaired[row] = decoded.damage
        except UnreadableImageError as error:
            bad[row] = error.reason
    shape = (len(images), preprocessing.channels, *preprocessing.image_size)
    pixels = np.array(images, dtype=np.uint8).reshape(shape)
    return DecodedBatch(len(futures), torch.from_numpy(pixels), bad, repaired)
