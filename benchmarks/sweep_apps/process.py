"""Runs the sweep benchmarks' commands as a user types them, and samples their CPU and memory."""

import bisect
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

APPS = Path(__file__).resolve().parent
_SAMPLE_SECONDS = 0.2
_SHOWN = 3000  # characters of a failed command's output, its last ones


@dataclass(frozen=True)
class Sample:
    """CPU time and memory of one command at one moment."""

    time: float  # time.time()
    controller_cpu: float  # seconds, user and system, of the started process
    workers_cpu: float  # of its children that are alive: drops if one of them ends
    rss: int  # resident bytes of the started process


@dataclass
class Run:
    """A command's duration and samples."""

    seconds: float = 0.0  # including start-up and shutdown
    samples: list[Sample] = field(default_factory=list)

    def cpu_between(self, begin: float, end: float) -> tuple[float, float]:
        """Return the CPU seconds of controller and workers between two moments of `time.time()`."""
        first, last = self._at(begin), self._at(end)
        # Samples are not taken exactly at the two moments.
        share = (end - begin) / max(last.time - first.time, 1e-9)
        return (
            (last.controller_cpu - first.controller_cpu) * share,
            (last.workers_cpu - first.workers_cpu) * share,
        )

    def max_rss(self) -> int:
        """Return the peak of the started process's resident bytes."""
        return max(sample.rss for sample in self.samples)

    def _at(self, moment: float) -> Sample:
        """Return the last sample before the moment: a later one may miss workers that ended."""
        index = bisect.bisect_right([sample.time for sample in self.samples], moment) - 1
        return self.samples[max(index, 0)]


def run_commands(
    commands: Sequence[Sequence[str]], directory: Path, until: Callable[[], bool] | None = None
) -> list[Run]:
    """Run Python commands in parallel in a directory, one thread each; return their `Run`s.

    Exits with the command's output if one fails. Kills the processes that are left.

    ``until``: as soon as it returns True, all commands are killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "1"}
    directory.mkdir(parents=True, exist_ok=True)
    runs = [Run() for _ in commands]
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        processes = []
        for index, command in enumerate(commands):
            log = stack.enter_context((directory / f"output_{index}.log").open("w+b"))
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, process)
            processes.append(process)
        while any(process.poll() is None for process in processes):
            for process, run in zip(processes, runs, strict=True):
                if process.returncode is None:
                    run.seconds = time.monotonic() - started
                    run.samples += _sample(process.pid)
            if until is not None and until():
                return runs
            time.sleep(_SAMPLE_SECONDS)
        for index, process in enumerate(processes):
            if process.returncode:
                text = (directory / f"output_{index}.log").read_text(errors="replace")
                command_line = " ".join(commands[index])
                raise SystemExit(
                    f"{command_line}\nended with {process.returncode}:\n{text[-_SHOWN:]}"
                )
    return runs


def _sample(pid: int) -> list[Sample]:
    with contextlib.suppress(psutil.Error):  # the process may just have ended
        process = psutil.Process(pid)
        own = process.cpu_times()
        children = 0.0
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                children += times.user + times.system
        rss = process.memory_info().rss
        return [Sample(time.time(), own.user + own.system, children, rss)]
    return []


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(psutil.Error):
            # The group does not include workers, which lead their own sessions.
            children = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(psutil.Error):
                    child.kill()
        process.wait()


def sweep_versions() -> dict[str, str]:
    """Return the versions of the packages a sweep's speed depends on."""
    names = (
        "hydra-core",
        "hydra-optuna-sweeper",
        "hydra-joblib-launcher",
        "joblib",
        "optuna",
        "sqlalchemy",
    )
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
