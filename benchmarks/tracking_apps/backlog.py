"""Measures how far a sweep's uploader falls behind trainers that only write their journals.

`python backlog.py RUN_DIR VALUES RECORDS PERIOD DELAY` is one of those trainers.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from visionsweep.rundir.journal import Journal, read_journal
from visionsweep.rundir.layout import run_directories
from visionsweep.tracking.ack import count_lines, load_ack, num_behind
from visionsweep.tracking.process import start_uploader

from .stores import connect

BENCHMARKS = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.1
WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Backlog:
    """The records that one uploader had yet to send, and its CPU time."""

    first_sent: float  # seconds from the uploader's start to the first record in the store
    largest: int  # the most records missing in the store
    steady: int  # the same, in the second half of the writing time
    final: int  # records missing when the last one was written
    catch_up: float  # seconds from then until none was missing
    cpu: float  # CPU seconds of the uploader
    steady_cpu: float  # share of a core, in the second half
    records: int


@dataclass(frozen=True)
class _Sample:
    time: float
    total: int
    behind: int
    cpu: float


def measure_backlog(
    uri: str,
    database: str,
    values: Path,
    trainers: int,
    rate: float,
    seconds: float,
    directory: Path,
) -> Backlog:
    """Run trainers that write `rate` records per second each; exit if points are missing.

    `database` is the SQLite file behind `uri`; its points are counted at the end.
    """
    records = round(rate * seconds)
    began = time.time()
    uploader = start_uploader(directory, uri, "benchmark", WAIT_SECONDS)
    process = psutil.Process(uploader.pid)
    app = [sys.executable, "-m", "tracking_apps.backlog"]
    plan = [str(values), str(records), str(1 / rate)]
    writers = [
        subprocess.Popen(
            [*app, str(directory / str(index)), *plan, str(index / trainers / rate)], cwd=BENCHMARKS
        )
        for index in range(trainers)
    ]
    samples: list[_Sample] = []
    deadline = time.monotonic() + seconds + WAIT_SECONDS
    while True:
        is_writing = any(writer.poll() is None for writer in writers)
        runs = run_directories(directory)
        behind = num_behind(directory, uri)
        cpu = process.cpu_times()
        samples.append(
            _Sample(time.time(), sum(map(count_lines, runs)), behind, cpu.user + cpu.system)
        )
        if (not is_writing and behind == 0) or time.monotonic() > deadline:
            break
        time.sleep(SAMPLE_SECONDS)
    uploader.finish(WAIT_SECONDS, lambda _: None)
    for writer in writers:
        writer.wait()
    keys = len(json.loads(values.read_text(encoding="utf-8")))
    _check(directory, uri, database, records, keys, trainers)
    times = [record["time"] / 1000 for run in runs for record in read_journal(run)]
    middle, last = (min(times) + max(times)) / 2, max(times)
    half = [sample for sample in samples if middle <= sample.time <= last]
    return Backlog(
        first_sent=next(sample.time for sample in samples if sample.behind < sample.total) - began,
        largest=max(sample.behind for sample in samples),
        steady=max(sample.behind for sample in half),
        final=next(sample.behind for sample in samples if sample.time >= last),
        catch_up=samples[-1].time - last,
        cpu=samples[-1].cpu,
        steady_cpu=(half[-1].cpu - half[0].cpu) / (half[-1].time - half[0].time),
        records=samples[-1].total,
    )


def _check(
    directory: Path, uri: str, database: str, records: int, keys: int, trainers: int
) -> None:
    """Exit unless the store has each point once."""
    runs = run_directories(directory)
    with connect(database) as connection:
        for run in runs:
            run_id = load_ack(run, uri).run_id
            (found,) = connection.execute(
                "SELECT count(*) FROM metrics WHERE run_uuid = ?", (run_id,)
            ).fetchone()
            if found != records * keys:
                raise SystemExit(
                    f"{uri}: run {run.name} has {found} points, expected {records * keys}"
                )
    if len(runs) != trainers:
        raise SystemExit(f"{len(runs)} trainers wrote a journal, expected {trainers}")


def main() -> None:
    """Write a trainer's journal without training."""
    run_dir, file = map(Path, sys.argv[1:3])
    records, period, delay = int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
    values = json.loads(file.read_text(encoding="utf-8"))
    journal = Journal(run_dir)
    journal.start(run_dir.name, "benchmark", {"optim.lr": 0.001}, {"command": "benchmark"})
    due = time.monotonic() + delay
    for step in range(1, records + 1):
        time.sleep(max(0.0, due - time.monotonic()))
        journal.metrics(step, values)
        journal.sync()
        due += period
    journal.end("finished")


if __name__ == "__main__":
    main()
