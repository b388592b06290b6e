"""What a task may change in its process, put back for the next one.

What is not here (random seeds, settings of libraries) stays, as between the jobs of Hydra's own
launcher; `hydra.launcher.max_trials_per_worker=1` gives each job a process of its own.
"""

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any


class ProcessState:
    """Working directory, environment, arguments, umask, streams and alarms of this process."""

    def __init__(self) -> None:
        self._directory = os.getcwd()
        self._environment = dict(os.environ)
        self._arguments = sys.argv[:]
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._streams = {1: sys.stdout, 2: sys.stderr}

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Restore the state at the end."""
        try:
            with warnings.catch_warnings():
                yield
        finally:
            self._restore()

    def _restore(self) -> None:
        signal.alarm(0)
        logging.disable(logging.NOTSET)
        os.umask(self._umask)
        with contextlib.suppress(OSError):  # it was removed; the next job says so
            os.chdir(self._directory)
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.argv = self._arguments[:]
        sys.stdout, sys.stderr = self._stream(1), self._stream(2)

    def _stream(self, descriptor: int) -> Any:
        if getattr(self._streams[descriptor], "closed", False):
            self._streams[descriptor] = open(  # noqa: SIM115 - lives as long as the process
                descriptor,
                "w",
                buffering=1,
                encoding="utf-8",
                errors="backslashreplace",
                closefd=False,
            )
        return self._streams[descriptor]


def is_spent() -> bool:
    """Return whether the task left what cannot be put back: torch's group of processes."""
    distributed: Any = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
