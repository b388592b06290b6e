"""What this machine offers to a process. Imports no torch."""

import os


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_share: int | None = None


def share_cores(count: int) -> None:
    """Let this process use `count` cores of its own; the others belong to other workers."""
    global _share
    _share = count


def count_own_cores() -> int:
    """Return the cores for work that goes on beside that of other workers: all without any."""
    return count_cores() if _share is None else _share


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user chose otherwise.

    By default they spin, and on a busy machine each then waits for one that is not running:
    training was up to a hundred times slower (docs/training.md). OpenMP reads this when torch is
    imported, so it must come first. Workers inherit it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # the OpenMP of Intel and LLVM


def waits_passively() -> bool:
    """Return whether OpenMP's threads sleep while they wait."""
    return os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
