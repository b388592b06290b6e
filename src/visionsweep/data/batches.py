"""Updates of micro-batches: one gather from the uint8 images, augmentation, normalization.

Every random choice follows from (seed, epoch, update), so an epoch that starts in the middle gives
the same batches, and a resumed run needs no generator state for its data. Nor does it depend on how
an update is split into micro-batches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import overload

import torch
from torch import Generator, Tensor

from visionsweep.data.prefetch import prefetched
from visionsweep.data.resize import resize
from visionsweep.data.seeds import derive_seed
from visionsweep.data.size_schedule import SizeSchedule
from visionsweep.data.streamed import Images, StreamedImages

# With an attribute `num_sources` above 1 it mixes the first images with the others: see Pipeline.
Augment = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]

# Images are augmented in pieces of about this size as floats, which bounds the temporary memory.
# The size must not depend on the micro-batch: each piece draws its own random numbers.
PIECE_BYTES = 64 * 2**20
MAX_PIECE = 512  # images


@dataclass(frozen=True)
class Batch:
    """A micro-batch, ready for the model."""

    # (B, C, H, W) float32, normalized, in the model's memory format; or (B, F) cached features
    images: Tensor
    targets: Tensor  # (B,) int64, or (B, K) float32 after mixup or cutmix


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of pixel values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Images, indices: Tensor) -> "Normalization":
        """Measure ``images[indices]``, (N, C, H, W) uint8, exactly, by sums of integers."""
        total, squares = _pixel_sums(images, indices)
        count = len(indices) * images.shape[2] * images.shape[3]
        mean = total.double() / count
        variance = squares.double() / count - mean**2
        # A constant channel would cause a division by 0.
        std = variance.clamp(min=0).sqrt().clamp(min=1.0)
        return cls(tuple((mean / 255).tolist()), tuple((std / 255).tolist()))

    def affine(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (1, C, 1, 1) scale and shift that normalize pixel values in [0, 255]."""
        mean = torch.tensor(self.mean, dtype=torch.float64) * 255
        std = torch.tensor(self.std, dtype=torch.float64) * 255
        scale, shift = (1 / std).float(), (-mean / std).float()
        return scale.view(1, -1, 1, 1).to(device), shift.view(1, -1, 1, 1).to(device)


def _pixel_sums(images: Images, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (C,) int64 sums of the pixel values of each channel, and of their squares."""
    if isinstance(images, StreamedImages):
        rows = indices.numpy()
        parts = images.pixels.sums[rows], images.pixels.squares[rows]
        return torch.from_numpy(parts[0].sum(axis=0)), torch.from_numpy(parts[1].sum(axis=0))
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for chunk in torch.split(indices, 4096):
        pixels = images[chunk].to(torch.int32)
        total += pixels.sum(dim=(0, 2, 3), dtype=torch.int64)
        squares += (pixels * pixels).sum(dim=(0, 2, 3), dtype=torch.int64)
    return total, squares


@dataclass(frozen=True)
class Placement:
    """Normalization, device and memory format of the batches that the model gets."""

    normalization: Normalization | None  # None: rows of features, which are no pixels
    device: torch.device
    memory_format: torch.memory_format


class Batches:
    """Base of training and evaluation batches: images on (or near) the device, and their form."""

    def __init__(
        self,
        images: Images,
        targets: Tensor,
        batch_size: int,
        placement: Placement,
        *,
        indices: Tensor,
    ) -> None:
        """``indices``: (n,) int64, the images to use."""
        self.indices = indices
        self.batch_size = batch_size
        self.device = placement.device
        self.memory_format = placement.memory_format
        self.images = images
        self.targets = targets.to(self.images.device)
        normalization = placement.normalization
        self._affine = None if normalization is None else normalization.affine(self.device)

    @property
    def waits_for_host(self) -> bool:
        """Whether batches go from the host's memory to a GPU."""
        return self.device.type == "cuda" and self.images.device.type == "cpu"

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the uint8 images and int64 targets of `indices`, on the device."""
        indices = indices.to(self.images.device)
        images, targets = self.images[indices], self.targets[indices]
        if self.waits_for_host:
            images = images.pin_memory()  # else the copy is not asynchronous
        return images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)

    def gather_each(self, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `gather` of each element of `rows`. Streamed images are decoded ahead."""
        if not isinstance(self.images, StreamedImages):
            yield from map(self.gather, rows)
            return
        on_gpu = self.device.type == "cuda"
        for indices, images in zip(rows, self.images.batches(rows, pin_memory=on_gpu), strict=True):
            targets = self.targets[indices].to(self.device, non_blocking=True)
            yield images.to(self.device, non_blocking=True), targets

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize (B, C, H, W) pixel values in [0, 255], uint8 or float, to float32.

        (B, F) features are returned as float32.
        """
        if self._affine is None:
            return images.to(torch.float32)
        scale, shift = self._affine
        normalized = images.to(torch.float32).mul(scale).add_(shift)
        return normalized.contiguous(memory_format=self.memory_format)


class TrainBatches(Batches):
    """The training images in a new order each epoch, as updates of up to `accumulate` batches."""

    def __init__(
        self,
        images: Images,
        targets: Tensor,
        batch_size: int,
        placement: Placement,
        *,
        indices: Tensor,
        augment: Augment,
        seed: int,
        balanced: bool,
        accumulate: int = 1,
        sizes: SizeSchedule | None = None,
    ) -> None:
        """``balanced``: draw each class equally often. ``sizes``: of the images of each epoch."""
        super().__init__(images, targets, batch_size, placement, indices=indices)
        self.accumulate = accumulate
        self.augment = augment
        self.seed = seed
        self.balanced = balanced
        self.sizes = sizes
        self._weights = _balanced_weights(targets[indices]) if balanced else None
        self._piece = max(1, min(MAX_PIECE, PIECE_BYTES // (4 * math.prod(images.shape[1:]))))

    @property
    def num_images(self) -> int:
        """Images per epoch."""
        return len(self.indices)

    @property
    def images_per_update(self) -> int:
        """Images in the largest update."""
        return -(-self.num_images // self.num_updates)

    @property
    def num_updates(self) -> int:
        """Updates per epoch."""
        return -(-self.num_images // (self.batch_size * self.accumulate))

    @property
    def num_batches(self) -> int:
        """Micro-batches in the largest update."""
        return -(-self.images_per_update // self.batch_size)

    @property
    def smallest_batch(self) -> int:
        """Images in the smallest micro-batch."""
        update = self.num_images // self.num_updates
        return update // -(-update // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the (n,) int64 image indices of `epoch`, in order."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        if self._weights is None:
            return self.indices[torch.randperm(self.num_images, generator=generator)]
        # An inverse-CDF draw, since torch.multinomial is limited to 2^24 categories.
        edges = self._weights.cumsum(0)
        draws = torch.rand(self.num_images, generator=generator, dtype=torch.float64) * edges[-1]
        rows = torch.searchsorted(edges, draws, right=True).clamp(max=self.num_images - 1)
        return self.indices[rows]

    def updates(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each update of `epoch`, from update number `start` on.

        The sizes of updates differ by one at most, and so do those of an update's micro-batches:
        on a short tail BatchNorm would be noisy, or fail if it is a single image.
        """
        updates = self._updates(epoch, start)
        return prefetched(updates) if self.waits_for_host else updates

    def _updates(self, epoch: int, start: int) -> Iterator[list[Batch]]:
        order = self.order(epoch)
        updates = torch.tensor_split(torch.arange(len(order)), self.num_updates)[start:]
        pieces = [
            order[sources]
            for number, update in enumerate(updates, start)
            for sources in self._sources(update, len(order), epoch, number)
        ]
        gathered = self.gather_each(pieces)
        size = None if self.sizes is None else self.sizes.size(epoch)
        generator = torch.Generator()
        for number, update in enumerate(updates, start):
            generator.manual_seed(derive_seed(self.seed, "augment", epoch, number))
            yield self._batches(gathered, len(update), generator, size)

    def _batches(
        self,
        gathered: Iterator[tuple[Tensor, Tensor]],
        count: int,
        generator: Generator,
        size: tuple[int, int] | None,
    ) -> list[Batch]:
        """Return the micro-batches of an update of `count` images, from the pieces that come."""
        pieces = []
        for images, targets in islice(gathered, -(-count // self._piece)):
            images, targets = self.augment(images, targets, generator)
            pieces.append((images if size is None else resize(images, size), targets))
        if len(pieces) == 1:
            images, targets = pieces[0]
        else:
            images, targets = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        parts = -(-count // self.batch_size)
        return [
            Batch(self.normalize(part), of_part)
            for part, of_part in zip(
                torch.tensor_split(images, parts), torch.tensor_split(targets, parts), strict=True
            )
        ]

    def _sources(
        self, update: Tensor, num_images: int, epoch: int, number: int
    ) -> Iterator[Tensor]:
        """Yield each piece's places in the epoch, then others for each further image of a mixture.

        The others are drawn from the whole epoch, as in the papers, never an image itself: even an
        update of one image is mixed. Their generator is their own: what an epoch needs is known
        before anything is augmented.
        """
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, "mix", epoch, number))
        for places in torch.split(update, self._piece):
            others = [
                (places + torch.randint(1, max(2, num_images), places.shape, generator=generator))
                % num_images
                for _ in range(1, getattr(self.augment, "num_sources", 1))
            ]
            yield torch.cat([places, *others])


class EvalBatches(Batches):
    """Each image once, in order, not augmented."""

    def __iter__(self) -> Iterator[Batch]:
        batches = self._batches()
        return prefetched(batches) if self.waits_for_host else batches

    def _batches(self) -> Iterator[Batch]:
        for images, targets in self.gather_each(torch.split(self.indices, self.batch_size)):
            yield Batch(self.normalize(images), targets)


def _balanced_weights(targets: Tensor) -> Tensor:
    counts = torch.bincount(targets)
    return 1.0 / counts[targets].double()


@overload
def move_if_it_fits(images: Tensor, device: torch.device) -> Tensor: ...
@overload
def move_if_it_fits(images: Images, device: torch.device) -> Images: ...
def move_if_it_fits(images: Images, device: torch.device) -> Images:
    """Return the images or features, on the GPU if it has room, so that no batch waits for it."""
    if device.type != "cuda" or isinstance(images, StreamedImages):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.nbytes < free // 4 else images
