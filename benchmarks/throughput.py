"""Training speed in images/s: `python benchmarks/throughput.py`.

One thread, batch 32, Fashion-MNIST. Same network, optimizer and memory format in turn for:
limit       a bare loop over float tensors in memory, without augmentation or metrics.
ours        `fit` with augmentation, metrics, checkpoints, journal and a live MLflow uploader. The
            time of validation is subtracted, since the limit has none.
dataloader  the usual per-sample PIL pipeline in a DataLoader.
Prints a table, then one JSON line of medians.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import hydra
import numpy as np
import torch
from machine import machine
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from visionsweep.config.schema import Config
from visionsweep.run.assemble import assemble
from visionsweep.run.context import RunContext
from visionsweep.run.description import resolved_config
from visionsweep.run.identity import flatten
from visionsweep.run.recorder import Recorder
from visionsweep.rundir.journal import Journal
from visionsweep.sweep.trial import NoTrial
from visionsweep.tracking.process import resolve_uri, start_uploader
from visionsweep.training import loop as training

CONF = Path(__file__).resolve().parent.parent / "conf"
MODELS = {"cnn": ["model=cnn"], "resnet10t": ["model=timm", "model.name=resnet10t"]}
SETTINGS = ["data=fashion_mnist", "augment=basic", "trainer.epochs=1", "trainer.threads=1"]
BATCH = 32


def compose(model: str) -> Config:
    """Return the resolved config of one variant."""
    with hydra.initialize_config_dir(str(CONF)):
        return resolved_config(hydra.compose("config", [*SETTINGS, *MODELS[model]]))


class Subset:
    """The parts of a run, with only `count` training images."""

    def __init__(self, model: str, count: int, sweep_dir: Path) -> None:
        self.sweep_dir = sweep_dir
        self.config = compose(model)
        self.parts = assemble(self.config)
        self.parts.train.indices = self.parts.train.indices[:count]

    def network(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the run's own network and optimizer, so that all variants train the same ones."""
        return self.parts.state.model.train(), self.parts.state.optimizer


def limit(subset: Subset) -> float:
    """Return images/s of a bare loop over normalized float tensors in memory."""
    model, optimizer = subset.network()
    train = subset.parts.train
    images = train.normalize(train.images[train.indices])
    targets = train.targets[train.indices]
    order = torch.randperm(len(images))
    started = time.perf_counter()
    for rows in order.split(BATCH):
        batch = images[rows].contiguous(memory_format=torch.channels_last)
        F.cross_entropy(model(batch), targets[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return len(images) / (time.perf_counter() - started)


def ours(subset: Subset) -> float:
    """Return images/s of `fit` as `train.py` runs it, recorded and uploaded, less validation."""
    parts = subset.parts
    validation = 0.0
    evaluate = training.evaluate

    def timed(*arguments: object, **keywords: object) -> object:
        nonlocal validation
        started = time.perf_counter()
        result = evaluate(*arguments, **keywords)  # type: ignore[arg-type]
        validation += time.perf_counter() - started
        return result

    run_dir = subset.sweep_dir / str(len(list(subset.sweep_dir.glob("[0-9]*"))))
    journal = Journal(run_dir)
    journal.start(
        run_dir.name,
        "benchmark",
        flatten(OmegaConf.to_container(OmegaConf.structured(subset.config))),
        {},
    )
    state = parts.state
    state.epoch = state.step = 0
    context = RunContext(
        run_dir=run_dir,
        config=subset.config,
        trial=NoTrial(),
        first_start=None,
        stored={},
        choices={},
        overrides=[],
        searched={},
    )
    recorder = Recorder(context, parts, journal)
    training.evaluate = timed  # type: ignore[assignment]
    try:
        started = time.perf_counter()
        training.fit(state, parts.train, parts.val, parts.settings, on_epoch_end=recorder)
        seconds = time.perf_counter() - started - validation
    finally:
        training.evaluate = evaluate
    journal.end("finished")
    journal.close()
    return parts.train.num_images / seconds


class PilDataset(Dataset[tuple[torch.Tensor, int]]):
    """One PIL image and one call per augmentation for each sample, like most training scripts."""

    def __init__(self, images: np.ndarray, targets: list[int], mean: float, std: float) -> None:
        from torchvision import transforms

        self.images, self.targets = images, targets
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(28, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


def dataloader(subset: Subset) -> float:
    """Return images/s of a DataLoader without workers, which are slower on small images."""
    model, optimizer = subset.network()
    parts = subset.parts
    train, inference = parts.train, parts.inference
    dataset = PilDataset(
        train.images[train.indices][:, 0].numpy(),
        train.targets[train.indices].tolist(),
        inference["mean"],
        inference["std"],
    )
    started = time.perf_counter()
    for images, targets in DataLoader(dataset, batch_size=BATCH, shuffle=True):
        batch = images.contiguous(memory_format=torch.channels_last)
        F.cross_entropy(model(batch), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return len(dataset) / (time.perf_counter() - started)


WARM_UP_ROUNDS = 5
VARIANTS: dict[str, Callable[[Subset], float]] = {
    "limit": limit,
    "ours": ours,
    "dataloader": dataloader,
}


def measure(model: str, arguments: argparse.Namespace, sweep_dir: Path) -> dict[str, list[float]]:
    """Return images/s of each variant and round; the variants take turns."""
    warm = Subset(model, 512, sweep_dir)
    # The warm-up also gives the uploader time to import MLflow and create its database.
    for _ in range(WARM_UP_ROUNDS):
        for variant in VARIANTS.values():
            variant(warm)
    subset = Subset(model, arguments.images, sweep_dir)
    measured: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(arguments.rounds):
        for name, variant in VARIANTS.items():
            measured[name].append(variant(subset))
    return measured


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        uri = resolve_uri(f"sqlite:///{directory}/mlflow.db", Path(directory))
        uploader = start_uploader(Path(directory) / "sweep", uri, "benchmark")
        results = {
            model: measure(model, arguments, Path(directory) / "sweep")
            for model in arguments.models
        }
        behind = uploader.finish(60, lambda _: None)
    if behind:
        raise SystemExit(
            f"the uploader is {behind} records behind; these are not the figures of a tracked run"
        )
    print(
        f"{machine()}  {arguments.images} images, batch {BATCH}, 1 thread, "
        f"{arguments.rounds} rounds"
    )
    print(f"{'':12}{'images/s, median (min..max)':>34}{'of the limit, pair by pair':>30}")
    for model, variants in results.items():
        for name, values in variants.items():
            ratios = [value / base for value, base in zip(values, variants["limit"], strict=True)]
            spread = f"{statistics.median(values):,.0f} ({min(values):,.0f}..{max(values):,.0f})"
            print(f"{model:12}{name:12}{spread:>22}{statistics.median(ratios):>20.3f}")
    medians = {
        m: {n: round(statistics.median(v), 1) for n, v in r.items()} for m, r in results.items()
    }
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
