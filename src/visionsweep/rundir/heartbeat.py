"""Signs of life of a run between its epochs, and samples of the machine's load.

Both come from threads of the trainer, since an epoch may take hours. Nothing here ends a run.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from visionsweep.rundir.journal import Journal
from visionsweep.rundir.layout import HEARTBEAT

BEAT_SECONDS = 20.0
DEAD_SECONDS = 120.0  # six missed beats

log = logging.getLogger(__name__)


@contextlib.contextmanager
def heartbeat(run_dir: Path, journal: Journal, system_seconds: float | None) -> Iterator[None]:
    """Touch the heartbeat file within the context; record the load every `system_seconds`."""
    stop = threading.Event()
    threads = [threading.Thread(target=_beat, args=(run_dir / HEARTBEAT, stop), daemon=True)]
    if system_seconds is not None:
        arguments = (run_dir, journal, system_seconds, stop)
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
    """Return the age of a run's last beat by the file system's own clock; None without one."""
    probe = run_dir / f"{HEARTBEAT}.probe"
    try:
        last = (run_dir / HEARTBEAT).stat().st_mtime
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return None
    return now - last


def system_metrics(run_dir: Path) -> dict[str, float]:
    """Return the machine's load under the names that MLflow's page expects of system metrics."""
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
    torch = sys.modules.get("torch")  # a trainer has imported it
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
        with contextlib.suppress(OSError):  # a full disk: the next beat may succeed
            path.touch()
        if stop.wait(BEAT_SECONDS):
            return


def _sample_system(run_dir: Path, journal: Journal, seconds: float, stop: threading.Event) -> None:
    sample = sum(record["type"] == "system" for record in journal.previous)
    psutil.cpu_percent()  # the first answer is always 0
    due = time.monotonic()
    while not stop.wait(max(0.0, due + seconds - time.monotonic())):
        due = time.monotonic()
        sample += 1
        try:
            journal.system(sample, system_metrics(run_dir))
        except Exception as error:  # the next sample may succeed
            log.debug("no sample of the machine's load: %s", error)
