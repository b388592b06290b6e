"""The processes that a worker has started, directly or not, and that may outlive their parents."""

import contextlib

import psutil

MARK = "VISIONSWEEP_WORKER"  # environment variable that a worker's descendants inherit


def kill_descendants(pid: int, mark: str | None) -> list[psutil.Process]:
    """Kill the processes that descend from the worker `pid`, and return them.

    Those of its tree, and those that left it (their parent has ended) but still bear its mark.
    """
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        found = {child.pid: child for child in psutil.Process(pid).children(recursive=True)}
    for process in psutil.process_iter() if mark else ():
        with contextlib.suppress(psutil.Error):  # another user's, or gone
            if process.pid != pid and process.environ().get(MARK) == mark:
                found[process.pid] = process
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            process.kill()
    return list(found.values())
