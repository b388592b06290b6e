"""Image files -> probabilities: the mean over flips and runs.

Threads decode the next images while the networks compute.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionsweep.data.dataset import Preprocessing
from visionsweep.data.decode import UnreadableImageError, decode_image
from visionsweep.errors import ConfigError, DataError
from visionsweep.machine import count_cores
from visionsweep.predict.arguments import TTA
from visionsweep.training.devices import choose_memory_format
from visionsweep.training.predictor import Predictor

PREFETCH = 2  # batches decoded ahead; more only take memory


def check_runs(run_dirs: Sequence[Path], predictors: Sequence[Predictor], tta: TTA) -> None:
    """Raise `ConfigError` unless the runs agree in their classes and allow `tta`."""
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


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


@torch.inference_mode()
def predict(
    paths: Sequence[Path],
    predictors: Sequence[Predictor],
    *,
    batch_size: int,
    tta: TTA,
    device: str,
) -> Tensor:
    """Return the (N, K) float64 probabilities of the images: the mean over the predictors.

    Images are decoded once per distinct preprocessing, a few batches at a time. Raises `DataError`
    if one cannot be read: none is skipped, since every image needs its row.
    """
    memory_format, _ = choose_memory_format("auto", torch.device(device))
    groups: dict[Preprocessing, list[Predictor]] = {}
    for predictor in predictors:
        groups.setdefault(predictor.preprocessing, []).append(
            predictor.to(memory_format=memory_format)
        )
    total = torch.zeros(len(paths), len(predictors[0].class_names), dtype=torch.float64)
    for preprocessing, group in groups.items():
        start = 0
        for batch in decoded_batches(paths, preprocessing, batch_size):
            images = batch.to(device)
            rows = total[start : start + len(batch)]
            for predictor in group:
                rows += _probabilities(predictor, images, tta).to("cpu", torch.float64)
            start += len(batch)
    return total / len(predictors)


def _probabilities(predictor: Predictor, images: Tensor, tta: TTA) -> Tensor:
    probabilities: Tensor = predictor(images)
    if tta == "flip":
        probabilities = (probabilities + predictor(images.flip(-1))) / 2
    return probabilities


def decoded_batches(
    paths: Sequence[Path], preprocessing: Preprocessing, batch_size: int
) -> Iterator[Tensor]:
    """Yield (B, C, H, W) uint8 batches of the images in their order.

    After an unreadable image nothing more is yielded, but the rest is read: the `DataError` counts
    all of them.
    """
    unreadable: list[UnreadableImageError] = []
    with ThreadPoolExecutor(count_cores()) as executor:  # Pillow releases the GIL
        pending: deque[list[Future[npt.NDArray[np.uint8]]]] = deque()
        for start in range(0, len(paths), batch_size):
            pending.append(
                [
                    executor.submit(decode_image, p, preprocessing)
                    for p in paths[start : start + batch_size]
                ]
            )
            is_last = start + batch_size >= len(paths)
            while pending and (is_last or len(pending) > PREFETCH):
                images = _collect(pending.popleft(), unreadable)
                if not unreadable:
                    yield torch.from_numpy(np.stack(images))
    if unreadable:
        raise DataError(
            f"{unreadable[0]}; {len(unreadable):,} of {len(paths):,} images. "
            "Every image needs a row: repair the file, or remove it from data.predict and sample"
        )


def _collect(
    futures: Sequence[Future[npt.NDArray[np.uint8]]], unreadable: list[UnreadableImageError]
) -> list[npt.NDArray[np.uint8]]:
    images = []
    for future in futures:
        try:
            images.append(future.result())
        except UnreadableImageError as error:
            unreadable.append(error)
    return images
