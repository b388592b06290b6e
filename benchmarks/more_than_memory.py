"""Training on more images than `data.cache_limit_gb` keeps, beside a DataLoader.

    python benchmarks/more_than_memory.py

Writes 40,000 JPEGs of 224x224 pixels (about 10 KB each) and trains a small `cnn` on one thread for
an epoch, so that decoding takes most of the time:
ours        `train.py` with data.cache_limit_gb=1 and data.workers=2, from a cold start.
dataloader  the same network in a bare loop over a DataLoader with as many workers, which decode
            with Pillow image by image; no validation, no metrics, no augmentation.
Prints images/s of training and the peak memory of all processes: the proportional set size (pages
that processes share count once), sampled twice a second. Linux only.
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
from machine import machine
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIDE, CLASSES = 224, 10
EPOCHS = 1
WIDTHS, HIDDEN = [8, 16, 16], 32
BATCH = 32

DATALOADER = """
import sys, time, torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from visionsweep.models.cnn import CNN

folder, workers = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
steps = [transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor(),
         transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
data = datasets.ImageFolder(folder, transforms.Compose(steps))
model = CNN([8, 16, 16], 32, num_classes=len(data.classes), in_channels=3, image_size=(224, 224))
model = model.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
for epoch in range(int(sys.argv[3])):
    started = time.perf_counter()
    for images, targets in DataLoader(data, int(sys.argv[4]), shuffle=True, num_workers=workers):
        loss = F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {len(data) / (time.perf_counter() - started):.0f} images/s", flush=True)
"""


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
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as directory:
        folder = Path(directory)
        started = time.perf_counter()
        make_images(folder / "photos", arguments.images)
        print(f"wrote {arguments.images:,} images in {time.perf_counter() - started:.0f} s")
        ours = [
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
        peer = [
            *(sys.executable, "-c", DATALOADER, str(folder / "photos")),
            *map(str, (arguments.workers, EPOCHS, BATCH)),
        ]
        for _ in range(arguments.rounds):
            for name, command in (("ours", ours), ("dataloader", peer)):
                output, peak = run(command, folder)
                if name == "ours":
                    print("\n".join(line for line in output.splitlines() if "GB" in line))
                speeds = [float(text) for text in re.findall(r"([\d.]+) images/s", output)]
                result = results.setdefault(name, {"images/s": [], "peak GB": []})
                result["images/s"] += speeds
                result["peak GB"].append(peak)
    print(f"{machine()}  {arguments.images:,} images, {arguments.workers} workers")
    for name, result in results.items():
        speeds, peak = result["images/s"], max(result["peak GB"])
        spread = f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f}..{max(speeds):,.0f})"
        print(f"{name:12}{spread:>24} images/s per epoch{peak:>8.2f} GB at most")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
