"""From pretrained weights to photographs: `python benchmarks/transfer.py DATA WEIGHTS`.

DATA is a folder with train/, validation/ and test/ of one folder per class, WEIGHTS a file for
`model.name` of the presets (the README says where to get one). Each part is a command that a user
types, in an empty directory with an empty cache:

probe     experiment=probe: cold (decoding and features included), then warm with each seed.
finetune  experiment=finetune with each seed.
scratch   the same network and data without weights, for as many epochs over the images.
sweep     --multirun experiment=probe sweep=probe, then the test split for its winner.

Prints validation and test macro F1, the seconds of the whole command, those of processor time that
it used, and the load of the machine at its start: on a busy machine the former mean little.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

ROOT = Path(__file__).resolve().parent.parent
# For an image epoch of scratch: what fine-tuning has, undone.
SCRATCH = [
    *("model.pretrained=false", "model.freeze=none", "model.unfreeze_epoch=null"),
    *("model.unfreeze_lr=null", "model.keep_batch_norm=false", "optim.layer_decay=null"),
    *("optim.lr=0.003", "optim.weight_decay=0.05"),
]


def command(arguments: list[str], directory: Path) -> str:
    """Run `visionsweep ARGUMENTS` in `directory`; return its seconds, processor time and load."""
    load, before = os.getloadavg()[0], processor_seconds()
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(directory / "cache"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "visionsweep", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    seconds, used = time.perf_counter() - started, processor_seconds() - before
    return f"{seconds:10.1f}{used:10.1f}{load:8.1f}"


def processor_seconds() -> float:
    """Return the processor time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def result(run_dir: Path) -> tuple[float, float]:
    """Return the best validation and the test macro F1 of a run."""
    found = json.loads((run_dir / "result.json").read_text())
    return found["objective"]["value"], found["test"]["test/f1_macro"]


class Bench:
    """Runs the parts and prints a row for each command."""

    def __init__(self, data: Path, weights: Path, directory: Path, threads: str) -> None:
        self.common = [f"data.root={data}", "tracking=none", f"trainer.threads={threads}"]
        self.weights = [f"model.pretrained={weights}"]
        self.directory = directory

    def run(self, label: str, *arguments: str) -> float:
        """Train once; print and return the test macro F1."""
        name = label.replace(" ", "_")
        times = command(["train", *arguments, *self.common, f"name={name}"], self.directory)
        val, test = result(self.directory / "outputs" / name)
        print(f"{label:24}{val:10.4f}{test:10.4f}{times}", flush=True)
        return test

    def seeds(self, label: str, seeds: int, *arguments: str) -> None:
        """Train with each seed; print mean and range of the test macro F1."""
        tests = [self.run(f"{label} {seed}", *arguments, f"seed={seed}") for seed in range(seeds)]
        spread = f"({min(tests):.4f}..{max(tests):.4f})"
        print(f"{label} test macro F1: mean {statistics.mean(tests):.4f} {spread}, n={seeds}")

    def sweep(self) -> None:
        """Search with the preset; print the winner's scores."""
        arguments = ["--multirun", "experiment=probe", "sweep=probe", "study=sweep"]
        common = [key for key in self.common if not key.startswith("trainer.threads")]
        times = command(["train", *arguments, *self.weights, *common], self.directory)
        best = self.directory / "multirun/sweep/best"
        command(["evaluate", "run=multirun/sweep/best"], self.directory)
        val, test = result(best)
        print(f"{'sweep, winner':24}{val:10.4f}{test:10.4f}{times}", flush=True)


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parts = ["probe", "finetune", "scratch", "sweep"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", default="null", help="trainer.threads of single runs")
    arguments = parser.parse_args()
    print(machine())
    print(f"{'':24}{'val F1':>10}{'test F1':>10}{'seconds':>10}{'processor':>10}{'load':>8}")
    with tempfile.TemporaryDirectory() as name:
        data, weights = arguments.data.resolve(), arguments.weights.resolve()
        bench = Bench(data, weights, Path(name), arguments.threads)
        if "probe" in arguments.parts:
            bench.run("probe cold", "experiment=probe", *bench.weights)
            bench.seeds("probe warm", arguments.seeds, "experiment=probe", *bench.weights)
        if "sweep" in arguments.parts:
            bench.sweep()
        if "finetune" in arguments.parts:
            bench.seeds("finetune", arguments.seeds, "experiment=finetune", *bench.weights)
        if "scratch" in arguments.parts:
            epochs = "trainer.epochs=4"  # as many over the images as fine-tuning
            bench.seeds("scratch", arguments.seeds, "experiment=finetune", *SCRATCH, epochs)


if __name__ == "__main__":
    main()
