"""Training on more images than `data.cache_limit_gb` keeps, beside a DataLoader.

    python benchmarks/more_than_memory.py

Writes 40,000 JPEGs of 224x224 pixels (about 10 KB each) and trains a small `cnn` on them for an
epoch with data.cache_limit_gb=1, from a cold start. Prints the peak memory of all its processes:
the proportional set size (pages that processes share count once), sampled twice a second.
Linux only.

Then images/s of input alone, on 4,000 of the images, one thread: normalized batches from streamed
images, and from a DataLoader with as many workers that decode with Pillow image by image.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from machine import machine
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from visionsweep.data.augment.pipeline import Pipeline
from visionsweep.data.batches import Normalization, Placement, TrainBatches
from visionsweep.data.cache import Streaming, decode_all
from visionsweep.data.dataset import Preprocessing

ROOT = Path(__file__).resolve().parent.parent
SIDE, CLASSES = 224, 10
EPOCHS = 1
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WIDTHS, HIDDEN = [8, 16, 16], 32
BATCH = 32


class PilFiles(Dataset[tuple[torch.Tensor, int]]):
    """The usual data set: Pillow and torchvision's transforms, image by image."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(SIDE),
                transforms.CenterCrop(SIDE),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), 0


def input_speeds(paths: list[Path], workers: int, rounds: int) -> dict[str, list[float]]:
    """Return images/s of an epoch of normalized batches without a network; the two take turns."""
    torch.set_num_threads(1)
    decoded = decode_all(
        *(paths, Preprocessing((SIDE, SIDE), 3), "error", "none"), streaming=Streaming(0.0, workers)
    )
    placement = Placement(Normalization(MEAN, STD), torch.device("cpu"), torch.channels_last)
    train = TrainBatches(
        *(decoded.images, torch.zeros(len(paths), dtype=torch.int64), BATCH, placement),
        indices=torch.arange(len(paths)),
        augment=Pipeline({}),
        seed=0,
        balanced=False,
    )
    speeds: dict[str, list[float]] = {"streamed": [], "DataLoader": []}
    for epoch in range(rounds):
        started = time.perf_counter()
        count = sum(len(update[0].targets) for update in train.updates(epoch))
        speeds["streamed"].append(count / (time.perf_counter() - started))
        started = time.perf_counter()
        loader = DataLoader(PilFiles(paths), BATCH, shuffle=True, num_workers=workers)
        for images, _ in loader:
            images.contiguous(memory_format=torch.channels_last)
        speeds["DataLoader"].append(len(paths) / (time.perf_counter() - started))
    return speeds


def make_images(folder: Path, count: int) -> None:
    """Write smooth noise in `CLASSES` folders."""

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        label = number % CLASSES
        low, high = 10 * label, 110 + 14 * label
        noise = Image.fromarray(rng.integers(low, high, (28, 28, 3), dtype=np.uint8))
        path = folder / f"class{label}" / f"{number}.jpg"
        noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)

    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    with ThreadPoolExecutor() as executor:
        list(executor.map(write, range(count)))


def shared_memory(pid: int) -> int:
    """Return the proportional set size in bytes; 0 if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return 0 if found is None else int(found[1]) * 1024


def run(command: list[str], cwd: Path) -> tuple[str, float]:
    """Return the output of a command, and the peak memory of its processes in GB."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            try:
                parent = psutil.Process(process.pid)
                tree = [parent, *parent.children(recursive=True)]
            except psutil.Error:
                continue
            peak = max(peak, sum(shared_memory(each.pid) for each in tree))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(output)
    return output, peak / 1e9


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--input-images", type=int, default=4000)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(dir=arguments.folder) as directory:
        folder = Path(directory)
        started = time.perf_counter()
        make_images(folder / "photos", arguments.images)
        print(f"wrote {arguments.images:,} images in {time.perf_counter() - started:.0f} s")
        command = [
            *(sys.executable, str(ROOT / "train.py"), "data=image_folder", "tracking=none"),
            *(
                f"data.root={folder / 'photos'}",
                f"data.image_size={SIDE}",
                "split.val_fraction=0.05",
            ),
            *(f"data.cache_dir={folder / 'cache'}", "data.cache_limit_gb=1"),
            *(f"data.workers={arguments.workers}", "trainer.threads=1"),
            *(f"trainer.epochs={EPOCHS}", f"trainer.batch_size={BATCH}"),
            *(f"model.widths={WIDTHS}".replace(" ", ""), f"model.hidden={HIDDEN}"),
        ]
        output, peak = run(command, folder)
        print("\n".join(line for line in output.splitlines() if "GB" in line or "epoch" in line))
        paths = sorted((folder / "photos").glob("*/*.jpg"))
        step = max(1, len(paths) // arguments.input_images)
        speeds = input_speeds(paths[::step], arguments.workers, arguments.rounds)
    print(f"{machine()}  {arguments.images:,} images, {arguments.workers} workers")
    print(f"training: {peak:.2f} GB at most")
    for name, values in speeds.items():
        spread = f"{statistics.median(values):,.0f} ({min(values):,.0f}..{max(values):,.0f})"
        print(f"{name:12}{spread:>24} images/s without a network")
    print(json.dumps({"peak GB": round(peak, 3), **speeds}))


if __name__ == "__main__":
    main()
