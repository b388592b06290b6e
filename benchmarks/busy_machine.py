"""Training on an idle and on a busy machine: `python benchmarks/busy_machine.py --old PATH`.

Runs what `make train` runs, without tracking, and prints the seconds of its epochs: alone, and
beside one busy process per core. `--old PATH` measures a second checkout in turn with this one.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from machine import machine

from visionsweep.machine import count_cores
from visionsweep.rundir.layout import RESULT

ROOT = Path(__file__).resolve().parent.parent
OWN_CHOICES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes computing."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(checkout: Path, overrides: list[str]) -> float:
    """Return the seconds of the epochs of one run."""
    environment = {key: value for key, value in os.environ.items() if key not in OWN_CHOICES}
    environment["PYTHONPATH"] = str(checkout / "src")
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(checkout / "train.py"), "tracking=none", "name=run"]
        subprocess.run(
            [*command, *overrides], cwd=directory, env=environment, check=True, capture_output=True
        )
        result = json.loads((Path(directory) / "outputs/run" / RESULT).read_text())
    return float(result["seconds"])


def main() -> None:
    """Print medians and ranges as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, help="a second checkout, for comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="further settings of the run")
    args = parser.parse_args()
    checkouts = {"old": args.old.resolve()} if args.old else {}
    checkouts["new"] = ROOT
    seconds: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for load, count in (("idle", 0), ("busy", count_cores())):
            for name, checkout in checkouts.items():
                with busy(count):
                    taken = train(checkout, args.overrides)
                seconds.setdefault(f"{name} {load}", []).append(taken)
                print(f"{name} {load}: {taken:.2f} s", file=sys.stderr)
    figures = {
        name: {
            "median": round(statistics.median(values), 2),
            "range": [round(min(values), 2), round(max(values), 2)],
        }
        for name, values in seconds.items()
    }
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    print(json.dumps({"seconds": figures, "load": load, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
