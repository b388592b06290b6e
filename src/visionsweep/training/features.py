"""The inputs of a model's last layer, computed once for all images and shared by all runs.

A file like that of decoded images, whose name is a digest of everything that the features depend
on: pixels, weights, augmentation, versions. Each chunk is computed by one thread, so that features
do not depend on the number of threads.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visionsweep.data import cache_file
from visionsweep.data.batches import Augment, Batches
from visionsweep.data.digest import pixel_digest
from visionsweep.data.findings import Findings
from visionsweep.data.progress import progress
from visionsweep.data.seeds import derive_seed
from visionsweep.data.shared_file import open_or_build
from visionsweep.errors import ConfigError
from visionsweep.machine import count_cores

FORMAT_VERSION = 1  # raise it when the computation or the layout changes
CHUNK = 32  # images; part of the result, since sums depend on it in their last bits
MAX_REMEMBERED = 4  # arrays that a worker keeps open

log = logging.getLogger(__name__)
_remembered: dict[str, Tensor] = {}

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Views:
    """Augmented versions of each image. Their random numbers do not depend on the run's seed."""

    count: int
    augment: Augment
    settings: Mapping[str, Any] = field(default_factory=dict)  # those of the augmentation


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes the input of the last layer of a model in evaluation mode."""

    model: nn.Module
    classifier: str  # name of the last layer
    autocast: Callable[[], AbstractContextManager[object]]
    settings: Mapping[str, Any]  # whatever else the features depend on
    folder: Path | None  # of the cache; None: keep them in memory

    def features(self, batches: Batches, views: Views | None = None) -> Tensor:
        """Return the features of all images of `batches`: (N, F) float32, or (N, V, F) of V views.

        Opens what an earlier or a parallel run computed. Raises `ConfigError` for a model whose
        logits are not those of its last layer on one row of features, `DataError` if the cache
        cannot be written.
        """
        key = self._key(batches, views)
        features = _remembered.pop(key, None)
        if features is None:
            features = self._open_or_compute(key, batches, views)
        _remembered[key] = features
        if len(_remembered) > MAX_REMEMBERED:
            del _remembered[next(iter(_remembered))]
        return features if views is not None else features[:, 0]

    def _key(self, batches: Batches, views: Views | None) -> str:
        settings = {
            **self.settings,
            "format": FORMAT_VERSION,
            "chunk": CHUNK,
            "torch": torch.__version__,
            "timm": metadata.version("timm"),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "device": batches.device.type,
            "memory_format": str(batches.memory_format),
            "weights": weights_digest(self.model, self.classifier),
            "pixels": pixel_digest(batches.images),
            "views": None if views is None else [views.count, dict(views.settings)],
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        return f"features-{digest.hexdigest()[:32]}"

    def _open_or_compute(self, key: str, batches: Batches, views: Views | None) -> Tensor:
        first = self._first(batches)
        shape = (len(batches.images), 1 if views is None else views.count, first)
        if self.folder is None:
            return torch.from_numpy(np.concatenate(list(self._chunks(batches, views))))
        path = self.folder / f"{key}.npy"

        def read() -> Tensor | None:
            found = cache_file.read(path, shape, np.float32)
            return None if found is None else torch.from_numpy(found[0])

        def build() -> None:
            cache_file.write(path, shape, self._chunks(batches, views), Findings(), np.float32)

        return open_or_build(
            path,
            read,
            build,
            lambda: cache_file.remove(path),
            contents="features",
            verb="computing",
            noun="features",
        )

    def _first(self, batches: Batches) -> int:
        """Return the number of features. Raises `ConfigError` if they are not all of the model."""
        images, _ = batches.gather(torch.arange(min(2, len(batches.images))))
        images = batches.normalize(images)
        classifier = self.model.get_submodule(self.classifier)
        self.model.eval()
        with torch.inference_mode():
            logits = self.model(images)
            with _without_classifier(self.model, self.classifier):
                features = self.model(images)
            is_whole = features.ndim == 2 and torch.allclose(
                classifier(features), logits, rtol=1e-4, atol=1e-5
            )
        if not is_whole:
            raise ConfigError(
                f"model.cache_features: the logits of {type(self.model).__name__} are more than "
                "its last layer on one row of features; set model.cache_features=false"
            )
        return int(features.shape[1])

    def _chunks(self, batches: Batches, views: Views | None) -> Iterator[Features]:
        """Yield (n, V, F) features of the images in order, and log the progress."""
        total, count = len(batches.images), 1 if views is None else views.count
        # One thread computes a chunk, so as many chunks at once as there are cores.
        workers = count_cores() if batches.device.type == "cpu" else 1

        def compute(start: int) -> Features:
            rows = torch.arange(start, min(start + CHUNK, total))
            images, targets = batches.gather(rows)
            with torch.inference_mode(), self.autocast():
                parts = [
                    self.model(batches.normalize(view)).float().cpu()
                    for view in _views_of(images, targets, views, start)
                ]
            return torch.stack(parts, dim=1).numpy()

        threads = torch.get_num_threads()
        starts = range(0, total, CHUNK)
        begun = time.perf_counter()
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            with (
                _without_classifier(self.model.eval(), self.classifier),
                progress(log, "computed features of", total) as advance,
            ):
                for start, part in zip(starts, pool.map(compute, starts), strict=True):
                    yield part
                    advance(start + len(part))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
        seconds = time.perf_counter() - begun
        log.info(
            "computed the features of %s images%s in %.1f s (%.0f images/s)",
            *(f"{total:,}", "" if views is None else f", {count} views of each"),
            *(seconds, total * count / seconds),
        )


def weights_digest(model: nn.Module, classifier: str) -> str:
    """Return a hash of all tensors of the model but those of its last layer."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{classifier}."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def forget_features() -> None:
    """Free the features that this process keeps open."""
    _remembered.clear()


def _views_of(images: Tensor, targets: Tensor, views: Views | None, start: int) -> Iterator[Tensor]:
    """Yield the views of the images of a chunk, which begins with the image number `start`."""
    if views is None:
        yield images
        return
    for view in range(views.count):
        generator = torch.Generator()
        generator.manual_seed(derive_seed("features", view, start))
        yield views.augment(images, targets, generator)[0]


@contextlib.contextmanager
def _without_classifier(model: nn.Module, name: str) -> Iterator[None]:
    """Have the model return the input of its last layer."""
    classifier = model.get_submodule(name)
    model.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        model.set_submodule(name, classifier)
