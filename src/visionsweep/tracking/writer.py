"""Whether the process that trains a run is still alive."""

import socket
from pathlib import Path

import psutil

from visionsweep.rundir.heartbeat import DEAD_SECONDS, seconds_since_alive
from visionsweep.rundir.journal import Record


def is_writer_alive(run_dir: Path, writer: Record) -> bool:
    """Return whether the process of a start or resume record may still write.

    A process on another host, or in another container, counts as dead after two minutes without a
    heartbeat.
    """
    if not writer:
        return False
    if writer["host"] != socket.gethostname():
        seconds = seconds_since_alive(run_dir)
        return seconds is None or seconds < DEAD_SECONDS
    try:
        process = psutil.Process(writer["pid"])
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        # Pids are reused: a process born after the record did not write it.
        return not is_zombie and process.create_time() * 1000 <= writer["time"] + 1000
    except psutil.NoSuchProcess:
        return False
