"""Training on photographs: `python benchmarks/photographs.py FOLDER`, one folder per class.

ResNet-10-T on images of 128 pixels, batch 32. Two comparisons, each with its sides in turn:
later epochs  images/s of `fit` (as in throughput.py) against a bare loop over tensors; one thread
first epoch   seconds until all images have been seen once: decoded, then trained on, against the
              per-sample pipeline in a DataLoader with one process per core. The same network and
              threads; by default one per core, as a command has
Prints JSON lines.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as in a command, for both sides

import throughput
import torch
from machine import machine
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from visionsweep.machine import count_cores
from visionsweep.training.loop import train_epoch

SIZE = 128


class Photographs(Dataset[tuple[torch.Tensor, int]]):
    """One decoded file and one call per augmentation for each sample."""

    def __init__(self, paths: list[str], targets: list[int], mean: float, std: float) -> None:
        from torchvision import transforms

        self.paths, self.targets = paths, targets
        self.transform = transforms.Compose(
            [
                transforms.Resize(SIZE),
                transforms.CenterCrop(SIZE),
                transforms.RandomCrop(SIZE, padding=SIZE // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.targets[index]


def first_epoch(directory: Path, threads: int) -> tuple[float, throughput.Subset]:
    """Return the seconds from the command to the end of the first epoch, and the parts."""
    settings = [*throughput.MODELS["photographs"], f"trainer.threads={threads}"]
    throughput.MODELS["first epoch"] = settings
    started = time.perf_counter()
    subset = throughput.Subset("first epoch", 10**9, directory)
    state, parts = subset.parts.state, subset.parts
    train_epoch(
        *(state, parts.train, parts.settings),
        should_stop=lambda: False,
        progress=lambda updates, _: iter(updates),
    )
    return time.perf_counter() - started, subset


def first_epoch_of_a_loader(subset: throughput.Subset) -> float:
    """Return the seconds of one epoch of a DataLoader, its processes' start included."""
    train, inference = subset.parts.train, subset.parts.inference
    ids, targets = subset.parts.dataset.train.ids, subset.parts.dataset.train.targets
    rows = train.indices.tolist()
    root = Path(subset.config.data["root"])
    dataset = Photographs(
        [str(root / ids[row]) for row in rows],
        [int(targets[row]) for row in rows],
        *(inference["mean"], inference["std"]),
    )
    model, optimizer = subset.network()
    started = time.perf_counter()
    loader = DataLoader(dataset, throughput.BATCH, shuffle=True, num_workers=count_cores())
    for images, labels in loader:
        batch = images.contiguous(memory_format=torch.channels_last)
        F.cross_entropy(model(batch), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1024, help="of the later epochs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-rounds", type=int, default=3)
    parser.add_argument("--first-threads", type=int, default=count_cores())
    arguments = parser.parse_args()
    throughput.MODELS["photographs"] = [
        *("data=image_folder", f"data.root={arguments.folder.resolve()}", "data.cache_dir=none"),
        *(f"data.image_size={SIZE}", "model=timm", "model.name=resnet10t"),
    ]
    torch.set_num_threads(1)
    print(json.dumps(machine()))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        speeds: dict[str, list[float]] = {"limit": [], "ours": []}
        subset = throughput.Subset("photographs", arguments.images, directory)
        for number in range(arguments.rounds + 1):
            for side in speeds:
                images_per_second = throughput.VARIANTS[side](subset)
                if number:  # the first round warms up
                    speeds[side].append(images_per_second)
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["limit"], strict=True)]
        print(json.dumps({"later epochs": _spread(speeds), "of the limit": _middle(ratios)}))
        seconds: dict[str, list[float]] = {"ours": [], "DataLoader": []}
        for _ in range(arguments.first_rounds):
            taken, subset = first_epoch(directory, arguments.first_threads)
            seconds["ours"].append(taken)
            seconds["DataLoader"].append(first_epoch_of_a_loader(subset))
        print(
            json.dumps(
                {
                    "first epoch, seconds": _spread(seconds),
                    "images": subset.parts.train.num_images,
                    "processes": count_cores(),
                    "threads": arguments.first_threads,
                }
            )
        )


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _spread(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {
        name: [_middle(several), round(min(several), 3), round(max(several), 3)]
        for name, several in values.items()
    }


if __name__ == "__main__":
    main()
