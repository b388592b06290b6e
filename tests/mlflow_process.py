"""`mlflow server` or `mlflow ui`, as a user starts it, on a free port of this machine."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

START_SECONDS = 120.0


class MlflowProcess:
    """One worker on a database, with the settings of the Makefile's `ui`. A context manager."""

    def __init__(self, verb: str, database: str, directory: Path, *options: str) -> None:
        """``database``: a URI. ``directory``: where its log is written. Raises nothing: it is not started yet."""
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.database = database
        self.log = directory / f"{verb}-{self.port}.log"
        self._command = [verb, "--workers", "1", "--port", str(self.port), "--backend-store-uri", database, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers; raises RuntimeError with the end of its log if that never happens."""
        binaries = Path(sys.executable).parent
        environment = os.environ | {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",  # it looks for uvicorn there
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(binaries / "mlflow"), *self._command],
                cwd=self.log.parent, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL it and its worker."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    """Return a port that nothing listens on now, from below those that the system gives to clients' connections."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
