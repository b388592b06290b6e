"""The cost of tracking to training, and MLflow's lag: `python benchmarks/tracking.py`.

One thread; about 8 minutes. `--parts` chooses among:
epoch    an epoch of `experiment=fashion_mnist` (48,000 training and 12,000 validation images) and
         the files written at its end: best and last checkpoint, the journal's record, its fsync.
         Trains on some of the images and scales the training time up; validation is complete.
         Always runs, except with `--parts dead` alone.
record   a journal record of 5 metrics, and one of all the epoch's metrics.
peers    the epoch's values, logged in turn by the journal (record and fsync), `mlflow.log_metrics`
         and Lightning's `MLFlowLogger`. The latter two write to an initialized SQLite file in
         MLflow's journal mode, and to a server on such a file (one worker, no jobs). One call per
         epoch, although Lightning's Trainer makes two.
backlog  8 trainers that only write one epoch's record per second each, and one uploader: the number
         of records missing in the store. Nothing trains; writers, uploader and server share the
         cores.
dead     real runs on the digits with a server that refuses connections, and with one that never
         answers, compared with `tracking=none`: time from the start of the first epoch to the end
         of the last. After that, a user waits at most `tracking.wait_seconds` (here 0, default 60).

Prints tables, then one JSON line. Writes to the temporary directory (TMPDIR); if that is in memory,
an fsync costs nothing. The rows of Lightning need `pip install -e ".[bench]"`.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)
# The server comes from the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from machine import machine
from tracking_apps import stores
from tracking_apps.backlog import measure_backlog
from tracking_apps.dead_server import NONE, VARIANTS, measure_trainings, ratio
from tracking_apps.epoch import FEW, EpochCosts, measure_epoch, time_records, time_syncs
from tracking_apps.peers import start_peer

from tests.mlflow_process import MlflowProcess, on_database

PARTS = ("epoch", "record", "peers", "backlog", "dead")
RECORD_BAR = 20e-6  # seconds per record
EPOCH_BAR = 0.01  # share of an epoch
DEAD_BAR = 0.01  # of the training time with tracking=none
TRAINERS = 8
LIGHTNING = "pytorch_lightning"
NOT_INSTALLED = "not installed (pip install .[bench])"


def main() -> None:
    """Measure, print the tables and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--images", type=int, default=12_000, help="training images of a timed epoch"
    )
    parser.add_argument("--epochs", type=int, default=6, help="timed epochs")
    parser.add_argument("--calls", type=int, default=200, help="calls per peer")
    parser.add_argument("--rate", type=float, default=1.0, help="records per second and trainer")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long trainers write")
    parser.add_argument(
        "--rounds", type=int, default=5, help="runs with each dead server and without tracking"
    )
    parser.add_argument("--run-epochs", type=int, default=100, help="epochs of each such run")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to try the benchmark; no real figures"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.epochs, arguments.calls = 1024, 2, 20
        arguments.seconds, arguments.rounds, arguments.run_epochs = 5.0, 2, 40
    versions = {LIGHTNING: metadata.version(LIGHTNING)} if _has_lightning() else {}
    print(f"{machine() | versions}  1 thread")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if set(arguments.parts) != {"dead"}:
            costs = measure_epoch(arguments.epochs, arguments.images, directory / "run")
            result["epoch"] = show_epoch(costs, arguments)
            (directory / "values.json").write_text(json.dumps(costs.values), encoding="utf-8")
        if "record" in arguments.parts:
            result["record"] = show_records(costs, directory, arguments.quick)
        if {"peers", "backlog"} & set(arguments.parts):
            result |= measure_stores(arguments, costs, directory)
        if "dead" in arguments.parts:
            result["dead"] = show_dead(arguments, directory / "dead")
    print(json.dumps(result))


def show_epoch(costs: EpochCosts, arguments: argparse.Namespace) -> dict[str, float]:
    """Print the cost of an epoch's end."""
    journal = [record + sync for record, sync in zip(costs.record, costs.sync, strict=True)]
    parts = {"journal": journal, "recorder": costs.recorder}
    shares = {name: statistics.median(seconds) / costs.epoch for name, seconds in parts.items()}
    print(
        f"\nepoch of Fashion-MNIST, {costs.num_images:,} training images: {costs.epoch:.2f} s "
        f"(median of {arguments.epochs}, trained on {arguments.images:,} images and scaled)"
    )
    print(f"{'at its end':32}{'ms, median (min..max)':>28}{'of the epoch':>14}")
    names = {"journal": "record and its fsync", "recorder": "best.pt, last.pt, record, fsync"}
    for name, seconds in parts.items():
        print(f"{names[name]:32}{_spread(seconds):>28}{100 * shares[name]:>12.3f} %")
    start = f"{1000 * costs.start:.0f} ms, {100 * costs.start / costs.epoch:.1f} % of one epoch"
    print(f"once per run, start of the record (digests of all images): {start}")
    print(_bar("share of an epoch, checkpoints included", shares["recorder"], EPOCH_BAR, "{:.2%}"))
    return {
        "seconds": round(costs.epoch, 2),
        "journal_share": round(shares["journal"], 6),
        "recorder_share": round(shares["recorder"], 6),
        "start_ms": round(1000 * costs.start, 1),
    }


def show_records(costs: EpochCosts, directory: Path, quick: bool) -> dict[str, float]:
    """Print the cost of a record and of an fsync."""
    number, syncs = (2_000, 50) if quick else (50_000, 500)
    print(f"\n{'journal':32}{'p50, us':>12}{'p99, us':>12}   {number:,} records, {syncs} fsyncs")
    measured = {
        "metrics_5": (
            f"record of {len(FEW)} metrics",
            time_records(FEW, number, directory / "few"),
        ),
        "epoch": (
            f"record of an epoch, {len(costs.values)} metrics",
            time_records(costs.values, number, directory / "all"),
        ),
        "fsync": ("fsync", time_syncs(costs.values, syncs, directory / "synced")),
    }
    result = {}
    for key, (name, seconds) in measured.items():
        p50, p99 = np.quantile(seconds, [0.5, 0.99])
        print(f"{name:32}{1e6 * p50:>12.1f}{1e6 * p99:>12.1f}")
        result |= {f"{key}_p50_us": round(1e6 * p50, 1), f"{key}_p99_us": round(1e6 * p99, 1)}
    for key in ("metrics_5", "epoch"):
        name, seconds = measured[key]
        print(_bar(f"{name}, p50", 1e6 * statistics.median(seconds), 1e6 * RECORD_BAR, "{:.1f} us"))
    return result


def measure_stores(
    arguments: argparse.Namespace, costs: EpochCosts, directory: Path
) -> dict[str, Any]:
    """Run the parts that need MLflow's stores."""
    result: dict[str, Any] = {}
    values = directory / "values.json"
    (directory / "server").mkdir()
    served = stores.sqlite_uri(directory / "served")
    artifacts = ("--artifacts-destination", str(directory / "server" / "artifacts"))
    with MlflowProcess(directory / "server", "server", *on_database(served), *artifacts) as process:
        server = process.uri
        if "peers" in arguments.parts:
            file = stores.sqlite_uri(directory / "direct")
            stores.initialize(file)
            result["peers"] = show_peers(
                arguments.calls, costs, {"SQLite": file, "server": server}, directory
            )
            with stores.connect(file) as connection:
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            print(f"journal mode of MLflow's SQLite file: {mode}")
        if "backlog" in arguments.parts:
            fresh = stores.sqlite_uri(directory / "fresh")
            found = {}
            for name, uri, database in (("SQLite", fresh, fresh), ("server", server, served)):
                place = directory / f"sweep_{name}"
                found[name] = measure_backlog(
                    uri, database, values, TRAINERS, arguments.rate, arguments.seconds, place
                )
            print(
                f"\nbacklog: {TRAINERS} trainers, {arguments.rate:g} records per second each for "
                f"{arguments.seconds:g} s; the store has each point once"
            )
            columns = (
                "first sent, s",
                "largest",
                "2nd half",
                "at the end",
                "caught up, s",
                "CPU, s",
                "CPU, 2nd half",
            )
            print(f"{'uploader to':14}" + "".join(f"{column:>15}" for column in columns))
            for name, b in found.items():
                figures = (
                    f"{b.first_sent:.1f}",
                    b.largest,
                    b.steady,
                    b.final,
                    f"{b.catch_up:.2f}",
                    f"{b.cpu:.1f}",
                    f"{b.steady_cpu:.1%}",
                )
                print(f"{name:14}" + "".join(f"{figure:>15}" for figure in figures))
            result["backlog"] = {
                name: {key: round(value, 3) for key, value in vars(backlog).items()}
                for name, backlog in found.items()
            }
    return result


def show_peers(
    calls: int, costs: EpochCosts, uris: dict[str, str], directory: Path
) -> dict[str, Any]:
    """Time the peers' calls, a few of each in turn, and print them."""
    values, rounds = directory / "values.json", 10
    wanted = {"journal": ("journal", str(directory / "peer"))}
    for store, uri in uris.items():
        wanted |= {
            f"mlflow.log_metrics, {store}": ("mlflow", uri),
            f"MLFlowLogger, {store}": ("lightning", uri),
        }
    with contextlib.ExitStack() as stack:
        peers = {}
        for index, (name, (way, target)) in enumerate(wanted.items()):
            if way != "lightning" or _has_lightning():
                peers[name] = start_peer(way, target, values, directory / f"peer_{index}")
                stack.callback(peers[name].close)
        for peer in peers.values():
            peer.run(3)
            peer.seconds.clear()
            peer.cpu = 0.0
        for index in range(rounds):
            names = list(peers)
            for name in names[index % len(names) :] + names[: index % len(names)]:
                peers[name].run(max(1, calls // rounds))
    ours = statistics.median(peers["journal"].seconds)
    num_calls = len(peers["journal"].seconds)
    print(f"\n{len(costs.values)} values per epoch, {num_calls} calls per peer, in turn")
    print(
        f"{'':30}{'p50, ms':>10}{'p99, ms':>10}{'CPU, ms':>10}{'of the epoch':>14}{'of ours':>10}"
    )
    result: dict[str, Any] = {}
    for name in wanted:
        if name not in peers:
            print(f"{name:30}{NOT_INSTALLED:>40}")
            continue
        peer = peers[name]
        p50, p99 = (float(value) for value in np.quantile(peer.seconds, [0.5, 0.99]))
        cpu = peer.cpu / len(peer.seconds)
        print(
            f"{name:30}{1e3 * p50:>10.2f}{1e3 * p99:>10.2f}{1e3 * cpu:>10.2f}"
            f"{100 * p50 / costs.epoch:>12.4f} %{p50 / ours:>10.1f}"
        )
        result[name] = {
            "p50_ms": round(1e3 * p50, 3),
            "p99_ms": round(1e3 * p99, 3),
            "cpu_ms": round(1e3 * cpu, 3),
            "epoch_share": round(p50 / costs.epoch, 7),
            "ratio": round(p50 / ours, 1),
        }
    return result


def show_dead(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Train with dead servers and without tracking, and print the durations."""
    measured = measure_trainings(arguments.rounds, arguments.run_epochs, directory)
    print(
        f"\ntraining with a dead server: digits, {arguments.run_epochs} epochs, "
        f"{arguments.rounds} runs of each in turn; ratios to tracking=none in the same round "
        "(95 % interval)"
    )
    columns = ("s, median (min..max)", "seconds", "median epoch", "CPU")
    print(f"{'server':16}" + "".join(f"{column:>24}" for column in columns))
    result: dict[str, Any] = {}
    for variant in VARIANTS:
        runs = measured[variant]
        seconds = [run.seconds for run in runs]
        row = f"{variant:16}{_spread(seconds, 1, 2):>24}"
        found: dict[str, Any] = {"seconds": round(statistics.median(seconds), 2)}
        if variant != NONE:
            for key in ("seconds", "epoch", "cpu"):
                r = ratio(measured, variant, key)
                row += f"{r.mean:>10.4f} ({r.low:.4f}..{r.high:.4f})".rjust(24)
                found[f"{key}_ratio"] = [round(value, 4) for value in (r.mean, r.low, r.high)]
            found["uploader_cpu"] = round(statistics.median(run.uploader_cpu for run in runs), 2)
            found["refusals"] = [run.refusals for run in runs]
            row += f"  uploader: {found['uploader_cpu']:.2f} s CPU, refused {found['refusals']}"
        print(row)
        result[variant] = found
    for variant in VARIANTS[1:]:
        for name, key in (("training", "seconds"), ("its CPU time", "cpu")):
            mean, low, high = (value - 1 for value in result[variant][f"{key}_ratio"])
            verdict = "undecided: use more --rounds"
            if high <= DEAD_BAR:
                verdict = "met"
            elif low > DEAD_BAR:
                verdict = "MISSED"
            found = f"{mean:+.2%} ({low:+.2%} to {high:+.2%}), bar {DEAD_BAR:+.2%}: {verdict}"
            print(f"server that {variant}, {name}: {found}")
        share = result[variant]["uploader_cpu"] / result[variant]["seconds"]
        print(f"server that {variant}, at most, if uploader and trainer share a core: {share:+.2%}")
    return result


def _bar(name: str, value: float, bar: float, form: str) -> str:
    verdict = "met" if value <= bar else "MISSED"
    return f"{name}: {form.format(value)}, bar {form.format(bar)}: {verdict}"


def _spread(seconds: list[float], scale: float = 1000.0, digits: int = 2) -> str:
    low, middle, high = (scale * f(seconds) for f in (min, statistics.median, max))
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def _has_lightning() -> bool:
    return importlib.util.find_spec(LIGHTNING) is not None


if __name__ == "__main__":
    main()
