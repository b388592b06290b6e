"""`mlflow server`, `mlflow ui` or `mlflow models serve` as a user starts it, on a free port."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

START_SECONDS = 120.0


class MlflowProcess:
    """A serving command of MLflow, with the environment of `make ui`. A context manager."""

    def __init__(
        self, directory: Path, *command: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """``directory``: its current directory and that of its log. `start` starts it."""
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"mlflow-{self.port}.log"
        self._command = [*command, "--port", str(self.port)]
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with the end of its log."""
        binaries = Path(sys.executable).parent
        environment = os.environ | {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",  # it looks for uvicorn there
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **self._environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(binaries / "mlflow"), *self._command],
                cwd=self.log.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(
                    f"{self._command} did not start:\n{self.log.read_text()[-3000:]}"
                )
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


def on_database(uri: str) -> tuple[str, ...]:
    """Return the options of a server or page with one worker on a database."""
    return "--workers", "1", "--backend-store-uri", uri


def free_port() -> int:
    """Return a port on which nothing listens now, below those of outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
