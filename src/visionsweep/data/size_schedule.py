"""Progressive resizing: the size of the training images as a function of the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

from visionsweep.data.preprocessing import height_and_width
from visionsweep.errors import ConfigError


@dataclass(frozen=True)
class SizeSchedule:
    """Sizes for equal parts of a run. It depends on the epoch alone, so resume is exact."""

    sizes: tuple[tuple[int, int], ...]  # height, width
    epochs: int

    def size(self, epoch: int) -> tuple[int, int]:
        """Return the size of an epoch, counted from 0. Earlier parts are the longer ones."""
        return self.sizes[min(epoch, self.epochs - 1) * len(self.sizes) // self.epochs]


def make_size_schedule(
    image_sizes: Sequence[int | Sequence[int]], epochs: int, full_size: tuple[int, int]
) -> SizeSchedule:
    """Return the schedule of `trainer.image_sizes`; raises `ConfigError` for a wrong one."""
    key, sizes = "trainer.image_sizes", []
    for item in image_sizes:
        sides = height_and_width(item)
        if sides is None:
            raise ConfigError(
                f"{key}: expected a list of pixels, such as [96,128], or of [height, width], "
                f"got {item} in it"
            )
        if any(side > full for side, full in zip(sides, full_size, strict=True)):
            raise ConfigError(
                f"{key}: {item} is more than the images have (data.image_size="
                f"{full_size[0]}x{full_size[1]}); raise data.image_size"
            )
        sizes.append(sides)
    if not 1 <= len(sizes) <= epochs:
        raise ConfigError(
            f"{key}: expected 1 to {epochs} sizes for trainer.epochs={epochs}, got {len(sizes)}"
        )
    return SizeSchedule(tuple(sizes), epochs)
