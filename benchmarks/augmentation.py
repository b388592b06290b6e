"""Milliseconds per batch of 32 photographs: our steps beside torchvision v2 and kornia, one thread.

    python benchmarks/augmentation.py

torchvision works image by image, since it draws one set of parameters for a whole batch. kornia
(`pip install kornia`) works on batches of floats; without it, its column is empty. All steps get
3x128x128 pixels, the crops 3x192x192, and change every image.
"""

import statistics
import time
from collections.abc import Callable

import torch
from machine import machine
from torch import Tensor
from torchvision.transforms import v2

from visionsweep.data.augment.color import ColorJitter
from visionsweep.data.augment.crop import RandomResizedCrop
from visionsweep.data.augment.geometry import Flip
from visionsweep.data.augment.pipeline import Pipeline, Step
from visionsweep.data.augment.policies import RandAugment, Rotation, TrivialAugment

BATCH, SIDE, STORED = 32, 128, 1.5
ROUNDS = 15
SCALE, RATIO = (0.35, 1.0), (3 / 4, 4 / 3)
BILINEAR = v2.InterpolationMode.BILINEAR

CROP = RandomResizedCrop(SCALE[0], RATIO[1], STORED, (SIDE, SIDE))
FLIP, COLOR = Flip(0.5, flips=True), ColorJitter(0.2, 0.2, 0.2, 0.05)
OURS: dict[str, Step] = {
    "resized crop": CROP,
    "flip": FLIP,
    "rotation": Rotation(10),
    "colour": COLOR,
    "RandAugment": RandAugment(2, 9),
    "TrivialAugment": TrivialAugment(),
    "crop, flip, rotation, colour": Pipeline(
        {"crop": CROP, "flip": FLIP, "rotation": Rotation(10), "color": COLOR}
    ),
}


def torchvision_steps() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return transforms of one uint8 image."""
    crop = v2.RandomResizedCrop(SIDE, scale=SCALE, ratio=RATIO)
    color = v2.ColorJitter(0.2, 0.2, 0.2, 0.05)
    flip, rotation = v2.RandomHorizontalFlip(), v2.RandomRotation(10, BILINEAR)
    return {
        "resized crop": crop,
        "flip": flip,
        "rotation": rotation,
        "colour": color,
        "RandAugment": v2.RandAugment(2, 9, interpolation=BILINEAR),
        "TrivialAugment": v2.TrivialAugmentWide(interpolation=BILINEAR),
        "crop, flip, rotation, colour": v2.Compose([crop, flip, rotation, color]),
    }


def kornia_steps() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return transforms of a batch of floats in 0..1; none if kornia is not installed."""
    try:
        import kornia.augmentation as kornia
        from kornia.augmentation import auto
    except ImportError:
        return {}
    crop = kornia.RandomResizedCrop((SIDE, SIDE), scale=SCALE, ratio=RATIO)
    flip, rotation = kornia.RandomHorizontalFlip(), kornia.RandomRotation(10.0, p=1.0)
    color = kornia.ColorJiggle(0.2, 0.2, 0.2, 0.05, p=1.0)
    return {
        "resized crop": crop,
        "flip": flip,
        "rotation": rotation,
        "colour": color,
        "RandAugment": auto.RandAugment(2, 9),
        "TrivialAugment": auto.TrivialAugment(),
        "crop, flip, rotation, colour": torch.nn.Sequential(crop, flip, rotation, color),
    }


def milliseconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    stored = round(SIDE * STORED)
    large = torch.randint(256, (BATCH, 3, stored, stored), dtype=torch.uint8, generator=generator)
    small = large[..., :SIDE, :SIDE].contiguous()
    targets = torch.zeros(BATCH, dtype=torch.int64)
    peers, batched = torchvision_steps(), kornia_steps()
    print(f"{'step':<30}{'ours':>8}{'torchvision':>14}{'kornia':>9}   (ms per batch of {BATCH})")
    for name, step in OURS.items():
        images = large if "crop" in name else small
        floats = images.float() / 255
        ours = milliseconds(lambda: step(images, targets, generator))  # noqa: B023
        loop = milliseconds(lambda: torch.stack([peers[name](x) for x in images]))  # noqa: B023
        row = f"{name:<30}{ours:>8.1f}{loop:>14.1f}"
        if name in batched:
            row += f"{milliseconds(lambda: batched[name](floats)):>9.1f}"  # noqa: B023
        print(row)
    print(machine())


if __name__ == "__main__":
    main()
