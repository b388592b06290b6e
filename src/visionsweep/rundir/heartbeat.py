"""What a run tells while it trains, besides its epochs: that it lives, and if asked, how busy the machine is.

A thread of the trainer, since an epoch may take hours. Nothing that happens here ends a run.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from visionsweep.rundir.journal import Journal, read_journal

ALIVE_NAME = ".alive"
BEAT_SECONDS = 20.0
DEAD_SECONDS = 120.0  # without a sign of life: six beats

log = logging.getLogger(__name__)


@contextlib.contextmanager
def watched(run_dir: Path, journal: Journal, system_seconds: float | None) -> Iterator[None]:
    """Show for the time of the context that the run lives; record the machine's load every `system_seconds`."""
    stop = threading.Event()
    threads = [threading.Thread(target=_beat, args=(run_dir / ALIVE_NAME, stop), daemon=True)]
    if system_seconds is not None:
        sample = sum(record["type"] == "system" for record in read_journal(run_dir))
        arguments = (run_dir, journal, system_seconds, sample, stop)
        threads.append(threading.Thread(target=_sample_system, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def seconds_since_alive(run_dir: Path) -> float | None:
    """Return how long ago a run showed that it lives, by the file system's own clock; None if it never did."""
    probe = run_dir / f"{ALIVE_NAME}.probe"
    try:
        last = (run_dir / ALIVE_NAME).stat().st_mtime
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return None
    return now - last


def system_metrics(run_dir: Path) -> dict[str, float]:
    """Return the machine's load, named as MLflow names it so that its page shows it under system metrics."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(run_dir))
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
        "system/disk_usage_percentage": disk.percent,
    }
    return values | _gpu_metrics()


def _gpu_metrics() -> dict[str, float]:
    torch = sys.modules.get("torch")  # a trainer has it; this module needs none
    if torch is None or not torch.cuda.is_available():
        return {}
    values = {}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        values[f"system/gpu_{index}_memory_usage_megabytes"] = (total - free) / 1e6
        values[f"system/gpu_{index}_memory_usage_percentage"] = 100 * (1 - free / total)
    return values


def _beat(path: Path, stop: threading.Event) -> None:
    while True:
        with contextlib.suppress(
            OSError
        ):  # a full disk, an unmounted folder: the next beat may do better
            path.touch()
        if stop.wait(BEAT_SECONDS):
            return


def _sample_system(
    run_dir: Path, journal: Journal, seconds: float, sample: int, stop: threading.Event
) -> None:
    psutil.cpu_percent()  # the first answer is always 0
    due = time.monotonic()
    while not stop.wait(max(0.0, due + seconds - time.monotonic())):
        due = time.monotonic()
        sample += 1
        try:
            journal.system(sample, system_metrics(run_dir))
        except Exception as error:  # goes on: the next sample may do better
            log.debug("no sample of the machine's load: %s", error)
