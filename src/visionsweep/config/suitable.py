"""What the presets of sweeps search, as far as memory and images allow: resolvers for their YAML.

trainer.batch_size: choice(${visionsweep.batch_sizes:${trainer.batch_size},2})
augment: choice(${visionsweep.augmentations:${data}})
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf


def batch_sizes(configured: int, count: int) -> str:
    """Return `count` batch sizes, each twice the one before: the largest is the configured one.

    That one fits in memory and is no more than the training images, or no run would start; larger
    updates come from accumulation.
    """
    halves = {max(1, configured >> power) for power in range(count)}
    return ",".join(map(str, sorted(halves)))


def augmentations(data: Mapping[str, Any]) -> str:
    """Return augmentations of growing strength that keep an image of this data set what it is.

    All of them mirror images only if `data.flips`. Crops and colour are for photographs: colour
    images in files, which are scaled to `data.image_size`.
    """
    is_photo = data.get("image_size") is not None and data.get("channels") == 3
    return "none,basic,photo" if is_photo else "none,basic"


OmegaConf.register_resolver("visionsweep.batch_sizes", batch_sizes, replace=True)
OmegaConf.register_resolver("visionsweep.augmentations", augmentations, replace=True)
