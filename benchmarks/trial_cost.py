"""The cost of a default sweep's trial in a warm worker: `python benchmarks/trial_cost.py`.

Measures the seconds of a trial's epochs (training, validation, checkpoints), the seconds of the
whole trial, and the epochs' share of it; one thread, no tracking. `--old PATH` measures a second
checkout, with its own environment (PATH/.venv), in turn with this one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine

from visionsweep.rundir.layout import RESULT

ROOT = Path(__file__).resolve().parent.parent

# Runs in each checkout, so it uses only names that all checkouts have.
WORKER = """
import json, os, sys, time
import hydra
from visionsweep.run import run
from visionsweep.sweep.trial import NoTrial, set_current_trial

class Trial(NoTrial):
    number, threads = 0, 1

set_current_trial(Trial())
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for number, _ in enumerate(sys.stdin):
    with hydra.initialize_config_dir(sys.argv[1]):
        cfg = hydra.compose("config", ["tracking=none", f"name={number}"])
    started = time.perf_counter()
    run(cfg)
    whole = time.perf_counter() - started
    with open(f"outputs/{number}/{sys.argv[2]}") as file:
        print(json.dumps([json.load(file)["seconds"], whole]), file=out, flush=True)
"""


class Worker:
    """A warm process of one checkout."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        folders = (checkout / "src/visionsweep/conf", checkout / "conf")
        conf = next(path for path in folders if path.is_dir())
        python = sys.executable if checkout == ROOT else str(checkout / ".venv/bin/python")
        directory.mkdir()
        self._process = subprocess.Popen(
            [python, "-c", WORKER, str(conf.resolve()), RESULT],
            cwd=directory,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run_trial(self) -> tuple[float, float]:
        """Run one trial and return the seconds of its epochs and of the whole trial."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        epochs, whole = json.loads(self._process.stdout.readline())
        return epochs, whole

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    """Measure, then print the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    checkouts = {"this": ROOT}
    if arguments.old is not None:
        checkouts = {"old": arguments.old.resolve(), **checkouts}
    with tempfile.TemporaryDirectory() as directory:
        workers = {name: Worker(path, Path(directory) / name) for name, path in checkouts.items()}
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
        for number in range(arguments.rounds + 1):
            for name, worker in workers.items():
                seconds = worker.run_trial()
                if number > 0:  # the first trial imports
                    measured[name].append(seconds)
        for worker in workers.values():
            worker.close()
    print(f"{machine()}  1 thread, median (min..max) of {arguments.rounds}")
    print(f"{'':6}{'seconds in epochs':>24}{'whole seconds':>24}{'share':>8}")
    for name, values in measured.items():
        epochs, whole = zip(*values, strict=True)
        share = statistics.median(e / w for e, w in values)
        print(f"{name:6}{spread(epochs):>24}{spread(whole):>24}{share:>8.2f}")


def spread(values: tuple[float, ...]) -> str:
    """Return median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


if __name__ == "__main__":
    main()
