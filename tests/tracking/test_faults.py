"""Uploaders, trainers and an MLflow server die at random, and nothing is lost or doubled.

Each seed is one scenario; all share one server. `VISIONSWEEP_SEEDS=17` or `100-160` chooses others.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.tracking.faults import CLIENT_TIMEOUT_SECONDS, FAULTS, NO_FAULTS, Plan, Proxy, Server
from tests.tracking.trials import ENDS, KILLS, compare
from visionsweep.tracking.process import start_uploader
from visionsweep.tracking.sync import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Raised inside mlflow and its dependencies; connections of its pool.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TRIALS = Path(__file__).with_name("trials.py")
NUM_PARALLEL = 10  # scenarios, which mostly wait
SYNC_PAUSES = (0.05,) * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def client(server):
    """A client of the server's database, without the server in between."""
    from mlflow import MlflowClient

    return MlflowClient(server.database)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(CLIENT_TIMEOUT_SECONDS))
    monkeypatch.setattr("visionsweep.tracking.sync.PAUSES", SYNC_PAUSES)


class Scenario:
    """A directory with several trials, its uploaders and its proxy; the seed decides everything."""

    def __init__(self, seed: int, directory: Path, server: Server) -> None:
        self.seed = seed
        self.experiment = f"seed {seed}"
        self.random = random.Random(f"scenario {seed}")
        self.server = server
        self.proxy = Proxy(server.port, Plan(seed, self.random.choice([0.1, 0.2, 0.3])))
        # Every third is a sweep, with a parent; the others are the seeds of a trial, without one.
        is_sweep = seed % 3 == 0
        self.directory = directory / str(seed) / ("sweep" if is_sweep else "7")
        names = (
            [str(number) for number in range(3)]
            if is_sweep
            else [f"seed_{number}" for number in range(3)]
        )
        self.run_dirs = [self.directory / name for name in names]

    def play(self) -> None:
        """Train and upload, with faults and kills; return when no process is left."""
        if not self._is_dead_from_the_start:
            self.proxy.open()
        trainers = [
            threading.Thread(target=self._train, args=(run_dir,)) for run_dir in self.run_dirs
        ]
        for trainer in trainers:
            trainer.start()
        if self._is_dead_from_the_start:
            revival = threading.Timer(self.random.uniform(1, 4), self.proxy.open)
            revival.start()
            trainers.append(revival)
        for _ in range(self.random.choice([0, 1, 1])):
            uploader = self._start_uploader()
            self.proxy.wait_for_requests(
                self.proxy.num_requests + self.random.randrange(60), seconds=6
            )
            os.kill(uploader.pid, signal.SIGKILL)
            uploader.finish(0, lambda behind: None)
        uploader = self._start_uploader()
        for trainer in trainers:
            trainer.join()
        if self.seed % 4 == 1:  # dead at the end
            self.proxy.close()
        uploader.finish(self.random.uniform(0, 3), lambda behind: None)
        self.proxy.open()
        self._sync()  # under faults; may give up
        self.proxy.drain()
        self.proxy.plan = NO_FAULTS

    def differences(self, client) -> list[str]:
        """Sync without faults; return what is wrong then."""
        lines = []
        with self.server.undisturbed():
            if self._sync("--verify") != 0:
                lines.append("sync --verify fails")
            lines += compare(client, self.experiment, self.run_dirs, self.server.artifacts)
            if self.seed % 5 == 0:  # to another address, so that everything is sent again
                if self._sync("--verify", uri=self.server.uri) != 0:
                    lines.append("sync --verify to the server itself fails")
                again = compare(client, self.experiment, self.run_dirs, self.server.artifacts)
                lines += [f"sent twice: {line}" for line in again]
        self.proxy.close()
        return lines

    @property
    def _is_dead_from_the_start(self) -> bool:
        return self.seed % 4 == 2

    def _train(self, run_dir: Path) -> None:
        rng = random.Random(f"{self.seed} {run_dir.name}")
        endings = [rng.choice(ENDS + KILLS)]
        if endings[0] in (*KILLS, "stopped") and rng.random() < 0.5:
            endings.append(rng.choice(ENDS + KILLS[:1]))
        run_dir.mkdir(parents=True)
        for ending in endings:
            time.sleep(rng.uniform(0, 1))
            code = subprocess.run(
                [sys.executable, TRIALS, run_dir, str(self.seed), ending], check=False
            ).returncode
            assert code == (-signal.SIGKILL if ending in KILLS else 0)

    def _start_uploader(self):
        return start_uploader(self.directory, self.proxy.uri, self.experiment, wait_seconds=5)

    def _sync(self, *options: str, uri: str | None = None) -> int:
        place = ["--uri", uri or self.proxy.uri, "--experiment", self.experiment]
        return main([str(self.directory), *place, *options])


def seeds() -> list[int]:
    first, _, last = os.environ.get("VISIONSWEEP_SEEDS", "0-19").partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_point_arrives_once_whatever_fails(server, client, tmp_path):
    """After `sync`, MLflow has each run and point of the journals once, and no RUNNING run."""
    seen: Counter[str] = Counter()

    def run(seed: int) -> list[str]:
        scenario = Scenario(seed, tmp_path, server)
        scenario.play()
        seen.update(scenario.proxy.seen)
        return scenario.differences(client)

    rng = random.Random(0)
    with ThreadPoolExecutor(NUM_PARALLEL) as pool:
        scenarios = {seed: pool.submit(run, seed) for seed in seeds()}
        for _ in range(2 if len(scenarios) > NUM_PARALLEL else 1):
            time.sleep(rng.uniform(5, 15))
            server.kill_and_start()
        found = {seed: scenario.result() for seed, scenario in scenarios.items()}
    wrong = [f"seed {seed}: {line}" for seed, lines in found.items() for line in lines]
    assert not wrong, "\n".join(wrong)
    assert not set(FAULTS) - seen.keys()
