"""From a sweep to an answer, on photographs: `python benchmarks/sweep_to_answer.py DATA WEIGHTS`.

DATA and WEIGHTS as in transfer.py. Training and validation images become one folder, since folds
need them together, and the test images another, as links. The steps are the commands that a user
types, in an empty directory:

sweep      losses and learning rates of a head on cached features, 5 folds per trial
confirm    the best three and the baseline again, with new seeds
compare    the losses of the sweep
ensemble   of the sweep's fold models

Prints the last lines of each step, its minutes, and the test macro F1 of what it chose, computed by
scikit-learn from a submission. With --shuffle all labels are permuted: then no step may find a
difference.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from sklearn.metrics import f1_score

ROOT = Path(__file__).resolve().parent.parent
FOLDS = 5


def link_images(data: Path, folder: Path, *, shuffle: bool) -> dict[str, str]:
    """Link the images below `folder`/train and `folder`/test; return the labels of the test."""
    test: dict[str, str] = {}
    rng = np.random.default_rng(0)
    for part, sources in (("train", ("train", "validation")), ("test", ("test",))):
        files = sorted(path for source in sources for path in (data / source).glob("*/*"))
        labels = [path.parent.name for path in files]
        if shuffle:
            labels = [labels[index] for index in rng.permutation(len(labels))]
        for number, (path, label) in enumerate(zip(files, labels, strict=True)):
            name = f"{number:05}{path.suffix}"
            place = folder / part / label / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())
            if part == "test":
                test[name] = label
    return test


class Bench:
    """Runs the steps in one directory."""

    def __init__(self, directory: Path, test: dict[str, str], lines: int) -> None:
        self.directory, self.test, self.lines = directory, test, lines

    def step(self, title: str, *arguments: str) -> None:
        """Run `visionsweep ARGUMENTS`; print its last lines and the minutes."""
        started = time.perf_counter()
        output = self._run(*arguments)
        minutes = (time.perf_counter() - started) / 60
        print(f"\n## {title}: {minutes:.1f} min\nvisionsweep {' '.join(arguments)}")
        print("\n".join(output.splitlines()[-self.lines :]), flush=True)

    def test_f1(self, *runs: str) -> None:
        """Print the test macro F1 of the runs, averaged at prediction time."""
        run = runs[0] if len(runs) == 1 else f"[{','.join(runs)}]"
        self._run("predict", f"run={run}", "data.predict=data/test", "out=test.csv")
        with (self.directory / "test.csv").open(newline="") as file:
            preds = {Path(row["id"]).name: row["label"] for row in csv.DictReader(file)}
        names = sorted(self.test)
        score = f1_score([self.test[n] for n in names], [preds[n] for n in names], average="macro")
        print(f"test f1_macro {score:.4f}: {run}", flush=True)

    def _run(self, *arguments: str) -> str:
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            "PYTHONPATH": str(ROOT / "src"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "visionsweep", *arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout


def main() -> None:
    """Run the steps and print what they say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5, help="new ones, at most")
    parser.add_argument("--lines", type=int, default=12, help="of each step's output")
    parser.add_argument("--shuffle", action="store_true", help="permute all labels")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        test = link_images(arguments.data, directory / "data", shuffle=arguments.shuffle)
        bench = Bench(directory, test, arguments.lines)
        bench.step(
            "sweep",
            *("train", "--multirun", "study=photos", "experiment=probe", "sweep=losses"),
            *("data.root=data", f"model.pretrained={arguments.weights.resolve()}"),
            *(f"hydra.sweeper.folds={FOLDS}", f"hydra.sweeper.n_trials={arguments.trials}"),
            *("hydra.sweeper.keep_checkpoints=10", "tracking=none"),
        )
        best = (directory / "multirun/photos/best").resolve().parent
        place = best.relative_to(directory.resolve())
        bench.test_f1(f"{place}/fold_0")
        bench.test_f1(*(f"{place}/fold_{fold}" for fold in range(FOLDS)))
        bench.step(
            "confirm",
            *("train", "--multirun", "confirm=multirun/photos", "tracking=none"),
            f"hydra.sweeper.seeds={arguments.seeds}",
        )
        record = json.loads((directory / "multirun/photos/confirmation.json").read_text())
        if record["confirmed_trial"] is not None:
            place = f"multirun/photos-confirm/{record['confirmed_trial']}/seed_0"
            bench.test_f1(*(f"{place}/fold_{fold}" for fold in range(FOLDS)))
        bench.step("compare", "compare", "multirun/photos", "by=loss")
        bench.step("ensemble", "ensemble", "multirun/photos", "out=outputs/ensemble")
        bench.test_f1("outputs/ensemble")


if __name__ == "__main__":
    main()
