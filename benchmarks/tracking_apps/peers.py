"""Logs an epoch's values in a new process, in one of several ways, and times the calls.

`python peers.py WAY TARGET VALUES` prints a JSON line when it is ready. For each number on stdin it
makes that many calls and prints their times as a JSON line.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Call = Callable[[dict[str, float], int], object]


def journal_calls(target: str) -> Call:
    """Our journal: one record and one fsync; `target` is a run's directory."""
    from visionsweep.rundir.journal import Journal

    journal = Journal(Path(target))
    journal.start("run", "benchmark", {}, {})

    def call(values: dict[str, float], step: int) -> None:
        journal.metrics(step, values)
        journal.sync()

    return call


def mlflow_calls(target: str) -> Call:
    """MLflow's own function, used as in its guide; `target` is a tracking URI."""
    import mlflow

    mlflow.set_tracking_uri(target)
    mlflow.set_experiment("benchmark")
    mlflow.start_run()
    return lambda values, step: mlflow.log_metrics(values, step=step)


def lightning_calls(target: str) -> Call:
    """Lightning's logger, called as by its Trainer; `target` is a tracking URI."""
    from pytorch_lightning.loggers import MLFlowLogger

    logger = MLFlowLogger("benchmark", tracking_uri=target)
    assert logger.run_id  # the first access creates the run, which must not be timed
    return lambda values, step: logger.log_metrics(values, step=step)


WAYS = {"journal": journal_calls, "mlflow": mlflow_calls, "lightning": lightning_calls}


@dataclass
class Peer:
    """One way of logging, in its own process; `seconds` and `cpu` grow with every `run`."""

    process: "subprocess.Popen[bytes]"
    log: Path
    seconds: list[float] = field(default_factory=list)  # of each call
    cpu: float = 0.0  # of all calls, in the process that makes them

    def run(self, calls: int) -> None:
        """Make this many calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n".encode())
        self.process.stdin.flush()
        answer = self._answer()
        self.seconds += answer["seconds"]
        self.cpu += answer["cpu"]

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{' '.join(map(str, self.process.args))} died:\n{self.log.read_text()[-3000:]}"
            )
        answer: dict[str, object] = json.loads(line)
        return answer


def start_peer(way: str, target: str, values: Path, directory: Path) -> Peer:
    """Start a process that logs; return once it has imported its library and connected."""
    directory.mkdir()
    log = directory / "stderr.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), way, target, str(values)],
            cwd=directory,  # an experiment's artifacts would go to ./mlruns
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    peer = Peer(process, log)
    peer._answer()
    return peer


def main() -> None:
    """Answer the parent process until it closes stdin."""
    way, target, file = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print to stderr
    values = json.loads(Path(file).read_text(encoding="utf-8"))
    call = WAYS[way](target)
    step = 0
    answers.write("{}\n")
    for line in sys.stdin:
        seconds = []
        cpu = time.process_time()
        for _ in range(int(line)):
            step += 1
            started = time.perf_counter()
            call(values, step)
            seconds.append(time.perf_counter() - started)
        answers.write(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu}) + "\n")


if __name__ == "__main__":
    main()
