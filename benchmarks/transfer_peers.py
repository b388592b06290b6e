"""Fine-tuning by timm's own train.py and by a Lightning script, beside `experiment=finetune`.

    python benchmarks/transfer_peers.py DATA WEIGHTS TRAIN_PY

DATA and WEIGHTS as in transfer.py; TRAIN_PY is the train.py of timm's repository. The same network,
weights, image size and number of epochs over the images; each peer with a recipe of its own kind:
AdamW, cosine or one-cycle, random crops and flips, two loading processes. The epoch with the best
validation is tested by the same code. Prints one JSON line per run: test macro F1, seconds of the
command, processor seconds, and images/s over the whole command. Needs the extra `bench`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from sklearn.metrics import f1_score
from transfer import ROOT

MODEL, SIZE, BATCH, EPOCHS = "tf_efficientnet_lite0", 128, 32, 4
MEAN = STD = (0.5, 0.5, 0.5)


def converted(weights: Path, directory: Path) -> Path:
    """Return the weights by timm's names, in a file."""
    from visionsweep.models.timm import create_model

    options: dict[str, Any] = {"num_classes": 1000, "in_channels": 3, "image_size": (SIZE, SIZE)}
    model = create_model(MODEL, pretrained=str(weights), **options)
    path = directory / "timm.pth"
    torch.save(model.state_dict(), path)
    return path


def test_f1(model: torch.nn.Module, data: Path) -> float:
    """Return the macro F1 on DATA/test, with resized centre crops."""
    from torchvision import datasets, transforms

    steps = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.ToTensor()]
    steps.append(transforms.Normalize(MEAN, STD))
    images = datasets.ImageFolder(str(data / "test"), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(images, 64)
    model.eval()
    with torch.inference_mode():
        predicted = [row for batch, _ in loader for row in model(batch).argmax(1).tolist()]
    return float(f1_score(images.targets, predicted, average="macro"))


def run_timm(data: Path, weights: Path, train_py: Path, directory: Path, seed: int) -> float:
    """Train with timm's script; return the test F1 of its best checkpoint."""
    import timm

    command = [sys.executable, str(train_py.resolve()), "--data-dir", str(data.resolve())]
    command += f"--model {MODEL} --pretrained --pretrained-path {weights} --num-classes 10".split()
    command += f"--img-size {SIZE} -b {BATCH} --epochs {EPOCHS} --warmup-epochs 1".split()
    command += ["--opt", "adamw", "--lr", "1e-3", "--weight-decay", "0.01"]
    command += ["--cooldown-epochs", "0"]
    command += f"--device cpu --workers 2 --seed {seed} --output {directory}/out".split()
    run(command, directory)
    path = next(directory.glob("out/*/model_best.pth.tar"))
    return test_f1(timm.create_model(MODEL, num_classes=10, checkpoint_path=str(path)), data)


def run_lightning(data: Path, weights: Path, _: Path, directory: Path, seed: int) -> float:
    """Train with a Lightning script; return the test F1 of its best checkpoint."""
    import pytorch_lightning as lightning
    import timm
    from torchvision import datasets, transforms

    lightning.seed_everything(seed, verbose=False)
    crop = [transforms.RandomResizedCrop(SIZE, scale=(0.5, 1)), transforms.RandomHorizontalFlip()]
    centre = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE)]
    end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]

    def loader(name: str, steps: list[Any], *, shuffle: bool) -> Any:
        images = datasets.ImageFolder(str(data / name), transforms.Compose(steps + end))
        return torch.utils.data.DataLoader(images, BATCH, shuffle=shuffle, num_workers=2)

    train, val = loader("train", crop, shuffle=True), loader("validation", centre, shuffle=False)

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = timm.create_model(
                MODEL, True, num_classes=10, pretrained_cfg_overlay={"file": str(weights)}
            )

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            logits = self.model(batch[0])
            return torch.nn.functional.cross_entropy(logits, batch[1], label_smoothing=0.1)

        def validation_step(self, batch: Any, _: int) -> None:
            correct = (self.model(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("accuracy", correct, batch_size=len(batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=1e-3, total_steps=EPOCHS * len(train)
            )
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    best = lightning.callbacks.ModelCheckpoint(directory, monitor="accuracy", mode="max")
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=[best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = Classifier()
    trainer.fit(classifier, train, val)
    classifier.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    return test_f1(classifier.model, data)


def run_ours(data: Path, weights: Path, _: Path, directory: Path, seed: int) -> float:
    """Train with `experiment=finetune`; return the test F1 of its best checkpoint."""
    command = [sys.executable, "-m", "visionsweep", "train", "experiment=finetune", "name=a"]
    command += [f"data.root={data.resolve()}", f"model.pretrained={weights}", f"seed={seed}"]
    run([*command, "tracking=none", "data.cache_dir=cache"], directory)
    result = json.loads((directory / "outputs/a/result.json").read_text())
    return float(result["test"]["test/f1_macro"])


def run(command: list[str], directory: Path) -> None:
    """Run a command in `directory`; end with its output if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(re.sub(r"\s+$", "", done.stdout[-1000:] + done.stderr[-2000:]))


def processor_seconds() -> float:
    """Return the processor time of this process and of its commands so far."""
    return sum(os.times()[:4])


def main() -> None:
    """Run each way with each seed, in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("train_py", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "timm", "lightning"], nargs="+")
    arguments = parser.parse_args()
    ways: dict[str, Callable[[Path, Path, Path, Path, int], float]] = {
        "ours": run_ours,
        "timm": run_timm,
        "lightning": run_lightning,
    }
    print(json.dumps(machine()), flush=True)
    seen = EPOCHS * sum(1 for path in (arguments.data / "train").rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        weights = converted(arguments.weights, Path(name))
        for seed in range(arguments.seeds):
            for way in arguments.only or ways:
                load, before = os.getloadavg()[0], processor_seconds()
                started = time.perf_counter()
                with tempfile.TemporaryDirectory() as directory:
                    own = arguments.weights.resolve() if way == "ours" else weights
                    f1 = ways[way](
                        *(arguments.data, own, arguments.train_py, Path(directory), seed)
                    )
                seconds = time.perf_counter() - started
                print(
                    json.dumps(
                        {
                            "way": way,
                            "seed": seed,
                            "test f1_macro": round(f1, 4),
                            "seconds": round(seconds),
                            "processor seconds": round(processor_seconds() - before),
                            "images/s": round(seen / seconds, 1),
                            "load": round(load, 1),
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
