"""The first check on a GPU, under 8 minutes on a fast one: `python benchmarks/gpu.py`.

It has never run on one. `--device cpu --quick` runs all of it in small on a CPU, in a minute.
throughput  images/s of ResNet-18 on generated JPEGs of 224 pixels: a bare loop over images on the
            device, `fit` (images on the device, and gathered ahead from the host's memory), and the
            same loop fed by timm's own loader with 8 processes
resume      a run that stops within an epoch and is resumed: equal bit for bit?
precision   gradient of one update in tf32, bf16 and fp16 against float64 on the CPU
memory      peak of an update of 256 images at once, and of 8 x 32 with the same gradient
Prints one JSON object per part.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from machine import machine
from PIL import Image
from torch.nn import functional as F

from visionsweep.run.assemble import RunParts, assemble
from visionsweep.run.description import resolved_config
from visionsweep.training.accumulation import backward
from visionsweep.training.loop import Interrupted, fit, train_epoch

CONF = Path(__file__).resolve().parent.parent / "conf"
NUM_CLASSES = 10


def build(*overrides: str) -> RunParts:
    """Return the parts of a run with these settings."""
    with hydra.initialize_config_dir(str(CONF)):
        return assemble(resolved_config(hydra.compose("config", ["tracking=none", *overrides])))


def write_images(root: Path, count: int, size: int) -> None:
    """Write `count` JPEGs of noise over a colour, in folders of classes."""

    def write(index: int) -> None:
        generator = np.random.default_rng(index)
        pixels = generator.normal(generator.uniform(0, 255, 3), 40, (size // 8, size // 8, 3))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((size, size))
        folder = root / str(index % NUM_CLASSES)
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{index}.jpg", quality=90)

    with ThreadPoolExecutor() as executor:
        list(executor.map(write, range(count)))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def host_memory(parts: RunParts) -> Iterator[None]:
    """Keep the images in the host's memory, as if they did not fit on the device."""
    train = parts.train
    kept = train.images, train.targets
    train.images, train.targets = train.images.cpu(), train.targets.cpu()
    try:
        yield
    finally:
        train.images, train.targets = kept


def throughput(root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return images/s of each way to feed the same network, median and range of the rounds."""
    parts = build(*photos(root, arguments), "augment=basic")
    device, settings, state = parts.settings.device, parts.settings, parts.state
    train, model, optimizer = parts.train, parts.state.model, parts.state.optimizer

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        with settings.autocast():
            loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def bare() -> int:
        count = 0
        for rows in torch.randperm(train.num_images).split(train.batch_size):
            images, targets = train.gather(train.indices[rows])
            step(train.normalize(images), targets)
            count += len(rows)
        return count

    def ours() -> int:
        state.epoch = state.step = 0
        state.epoch_statistics = None
        train_epoch(
            *(state, train, settings),
            should_stop=lambda: False,
            progress=lambda updates, _: iter(updates),
        )
        return train.num_images

    def from_host() -> int:
        with host_memory(parts):
            return ours()

    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(root))
    loader = create_loader(
        *(dataset, (3, arguments.size, arguments.size), train.batch_size),
        is_training=True,
        num_workers=arguments.workers,
        use_prefetcher=device.type == "cuda",
        device=device,
    )

    def timm_loader() -> int:
        count = 0
        for images, targets in loader:
            images = images.to(device, memory_format=train.memory_format)
            step(images, targets.to(device))
            count += len(images)
        return count

    ways: dict[str, Callable[[], int]] = {
        "bare loop": bare,
        "ours": ours,
        "ours, images on the host": from_host,
        "timm's loader": timm_loader,
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        for name, way in ways.items():
            model.train()
            synchronize(device)
            started = time.perf_counter()
            count = way()
            synchronize(device)
            if number:  # the first round warms up
                speeds[name].append(count / (time.perf_counter() - started))
    return {
        "precision": settings.precision,
        "images_per_second": {
            name: [round(f(values)) for f in (statistics.median, min, max)]
            for name, values in speeds.items()
        },
        "ours_of_bare": statistics.median(
            a / b for a, b in zip(speeds["ours"], speeds["bare loop"], strict=True)
        ),
    }


def resume(arguments: argparse.Namespace) -> dict[str, bool]:
    """Return for each precision whether a run stopped in its second epoch ends the same."""
    equal = {}
    for precision in ("fp32", "bf16"):
        options = [
            f"trainer.device={arguments.device}",
            f"trainer.precision={precision}",
            *("trainer.deterministic=true", "trainer.epochs=3", "augment=basic"),
        ]
        whole, first, second = build(*options), build(*options), build(*options)
        run_to_end(whole)
        with contextlib.suppress(Interrupted):
            fit(
                *(first.state, first.train, first.val, first.settings),
                on_epoch_end=lambda _: False,
                should_stop=lambda state=first.state, n=first.train.num_updates: (
                    state.step == n + 7
                ),
            )
        second.state.load_state_dict(first.state.state_dict())
        run_to_end(second)
        weights = zip(whole.state.model.parameters(), second.state.model.parameters(), strict=True)
        equal[precision] = all(torch.equal(a, b) for a, b in weights)
    return equal


def run_to_end(parts: RunParts) -> None:
    """Train to the last epoch."""
    fit(
        *(parts.state, parts.train, parts.val, parts.settings),
        on_epoch_end=lambda _: False,
    )


def gradient(parts: RunParts) -> torch.Tensor:
    """Return the gradient of the first update, before clipping, as float64 on the CPU."""
    batches = next(iter(parts.train.updates(0)))
    model = parts.state.model.train()
    model.zero_grad(set_to_none=True)
    backward(model, parts.state.loss, batches, parts.settings.autocast, lambda loss: loss)
    return torch.cat(
        [p.grad.double().cpu().flatten() for p in model.parameters() if p.grad is not None]
    )


def precision(root: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the relative error of the gradient in each precision, against float64."""
    exact = build(*photos(root, arguments), "trainer.device=cpu", "trainer.precision=fp32")
    exact.state.model.double()
    assert exact.train._affine is not None
    scale, shift = (tensor.double() for tensor in exact.train._affine)
    exact.train.normalize = lambda images: images.double() * scale + shift  # type: ignore[method-assign]
    expected = gradient(exact)
    kinds = ["fp32", "bf16", "fp16"] + ["tf32"] * arguments.device.startswith("cuda")
    errors = {}
    for kind in kinds:
        found = gradient(build(*photos(root, arguments), f"trainer.precision={kind}"))
        errors[kind] = float((found - expected).norm() / expected.norm())
    return errors


def memory(root: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return peak MiB of an update at once and in micro-batches, and how their gradients differ."""
    size, result, gradients = photos_batch(arguments), {}, []
    for name, batch, accumulate in (("at once", size, 1), ("in 8", size // 8, 8)):
        parts = build(
            *photos(root, arguments),
            *(f"trainer.batch_size={batch}", f"trainer.accumulate={accumulate}"),
            # Without BatchNorm, whose micro-batches differ by their nature.
            "model.name=convnext_atto",
            "trainer.precision=fp32",
        )
        if parts.settings.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        gradients.append(gradient(parts))
        if parts.settings.device.type == "cuda":
            result[f"MiB {name}"] = torch.cuda.max_memory_allocated() / 2**20
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    return result | {"relative difference of the gradients": float(difference)}


def photos_batch(arguments: argparse.Namespace) -> int:
    """Return the images per update."""
    return 16 if arguments.quick else 256


def photos(root: Path, arguments: argparse.Namespace) -> list[str]:
    """Return the overrides for the generated images."""
    return [
        *("data=image_folder", f"data.root={root}", f"data.image_size={arguments.size}"),
        *("model=timm", "model.name=resnet18", "data.cache_dir=none"),
        f"trainer.device={arguments.device}",
        f"trainer.batch_size={photos_batch(arguments)}",
        "trainer.epochs=1",
    ]


def main() -> None:
    """Run the parts, and print each result as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="64 images of 64 pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=8, help="processes of timm's loader")
    arguments = parser.parse_args()
    arguments.size, count = (64, 64) if arguments.quick else (224, 8192)
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    print(json.dumps({"device": name, **machine()}), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write_images(root, count, arguments.size)
        for part in (
            lambda: {"throughput": throughput(root, arguments)},
            lambda: {"resumes bit for bit": resume(arguments)},
            lambda: {"relative error of the gradient": precision(root, arguments)},
            lambda: {"memory": memory(root, arguments)},
        ):
            started = time.perf_counter()
            print(json.dumps(part() | {"seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
