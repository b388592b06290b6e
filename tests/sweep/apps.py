"""Generic Hydra apps for tests of whole sweeps. They use neither torch nor images.

`App` runs a command line in this process and its jobs in a thread. This saves the seconds that
workers need to start, and the task function may be any closure. `CRASH_APP` is the source of an app
for real processes, which writes its own checkpoint.
"""

import logging
import queue
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.storages import BaseStorage, InMemoryStorage

from hydra_plugins.visionsweep_sweep.launcher import WorkersLauncher
from visionsweep.config.secrets import masked_config
from visionsweep.rundir.layout import OPTIMIZATION_RESULTS, STUDY
from visionsweep.sweep import open_study, past_trials
from visionsweep.sweep.engines.engine import AttributesSet, Ended, Event, Job, Reported, Started
from visionsweep.sweep.space.space import SearchSpace
from visionsweep.sweep.trial import NoTrial, TrialPruned, TrialStopped, set_current_trial

CONF = {
    "config.yaml": """
        defaults: [{db: mysql}, {"db@backup": sqlite}, _self_]
        x: 1.0
        y: 0
        z: null
        mode: fast
        numbers: [1, 2]
        seed: 7
        epochs: 3
        old: {a: 1}
        """,
    "db/mysql.yaml": "name: mysql\nport: 3306\n",
    "db/postgresql.yaml": "name: postgresql\nport: 5432\n",
    "db/sqlite.yaml": "name: sqlite\nport: null\n",
}

OPTUNA_ASYNC = (
    "--multirun",
    "hydra/sweeper=optuna_async",
    "hydra/sweeper/sampler=random",
    "hydra.sweeper.sampler.seed=5",
)


@dataclass(frozen=True)
class Outcome:
    """The exit code and output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    def error(self) -> str:
        """Return the error: the only line on stderr, with exit code 1 and no traceback."""
        assert self.code == 1, self.text
        assert "Traceback" not in self.text, self.text
        assert self.stderr.startswith("error: "), self.text
        return self.stderr.removeprefix("error: ").rstrip("\n")


Task = Callable[[DictConfig], Any]


def sphere(cfg: DictConfig) -> float:
    """Return upstream's example objective."""
    return float(cfg.x**2 + cfg.y**2)


class App:
    """A Hydra app in a folder of its own; calling it runs a command line in this process."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: "pytest.CaptureFixture[str] | NoCapture",
        *,
        is_quick: bool = False,
    ) -> None:
        """``is_quick``: keep studies in memory and compose only what runs; takes half the time."""
        self.folder = folder
        self._storages: dict[str, BaseStorage] = {}
        self.task: Task = sphere
        self.jobs: list[Job] = []  # submitted by the last command
        self.configs: list[Any] = []  # of the task function, in the last command
        self.overrides: list[tuple[str, ...]] = []  # as the job sees them
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        for name, text in CONF.items():
            self.write(name, text)
        if is_quick:
            for module in (open_study, past_trials):
                monkeypatch.setattr(module, "open_storage", self._open_storage)
            monkeypatch.setattr(SearchSpace, "probes", lambda space, is_group: [])

    def write(self, name: str, text: str) -> None:
        """Write a file of the app's config folder."""
        path = self.folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def extend(self, **nodes: Any) -> None:
        """Add nodes to the app's primary config."""
        path = self.folder / "conf" / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | nodes, sort_keys=False))

    def __call__(self, *arguments: str) -> Outcome:
        self.jobs, self.configs, self.overrides = [], [], []
        self._monkeypatch.setattr(sys, "argv", [str(self.folder / "app.py"), *arguments])
        self._monkeypatch.setattr(
            WorkersLauncher,
            "create_engine",
            lambda launcher, **_: InlineEngine(self.jobs, **launcher._sweep),
        )
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        code = 0
        self._capfd.readouterr()
        try:
            hydra.main(config_path=str(self.folder / "conf"), config_name="config")(self._task)()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            for handler in root.handlers[:]:
                if handler not in handlers:
                    handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)
        return Outcome(code, *self._capfd.readouterr())

    def sweep(self, *arguments: str, to: str = "s") -> Outcome:
        """Run a sweep with seeded random search in the folder `to`."""
        return self(*OPTUNA_ASYNC, f"hydra.sweep.dir={to}", *arguments)

    def _task(self, cfg: DictConfig) -> Any:
        self.configs.append(OmegaConf.to_container(cfg))
        self.overrides.append(tuple(HydraConfig.get().overrides.task))
        return self.task(cfg)

    # -- results of a sweep

    def study(self, name: str = "s", *, folder: str | None = None) -> optuna.Study:
        """Load a sweep's study with plain Optuna."""
        url = f"sqlite:///{Path(folder or name) / STUDY}"
        return optuna.load_study(study_name=name, storage=self._storages.get(url, url))

    def _open_storage(self, url: str, requests: Sequence[int] = ()) -> BaseStorage:
        return self._storages.setdefault(url, InMemoryStorage())

    def results(self, folder: str = "s") -> dict[str, Any]:
        """Return the results file."""
        found = yaml.safe_load((self.folder / folder / OPTIMIZATION_RESULTS).read_text())
        assert isinstance(found, dict)
        return found

    def directories(self, folder: str = "s") -> list[str]:
        """Return the numbered directories."""
        return sorted(
            (p.name for p in (self.folder / folder).iterdir() if p.name.isdigit()), key=int
        )


class NoCapture:
    """A replacement for capfd in module-scoped fixtures."""

    def readouterr(self) -> tuple[str, str]:
        return "", ""


class InlineEngine:
    """An engine with one slot: a thread of this process that waits for answers like a worker."""

    num_slots = num_cores = threads = 1

    def __init__(
        self, jobs: list[Job], *, hydra_context: Any, config: DictConfig, task_function: Task
    ) -> None:
        self._jobs = jobs
        self._loader = hydra_context.config_loader
        self._context = hydra_context
        self._config = config
        self._task_function = task_function
        self._thread: threading.Thread | None = None
        self._trial: InlineTrial | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._is_stopping = False

    @property
    def num_free(self) -> int:
        return 1 if self._thread is None and not self._is_stopping else 0

    def submit(self, job: Job) -> None:
        assert self.num_free
        self._jobs.append(job)
        self._trial = InlineTrial(job, self._events)
        self._thread = threading.Thread(target=self._run, args=(job, self._trial))
        self._thread.start()

    def poll(self, timeout_seconds: float) -> list[Event]:
        try:
            event = self._events.get(bool(timeout_seconds), timeout_seconds)
        except queue.Empty:
            return []
        if isinstance(event, Ended):
            assert self._thread is not None
            self._thread.join()
            self._thread = self._trial = None
        return [event]

    def answer(self, key: str, *, prune: bool, pause: bool = False) -> None:
        assert self._trial is not None
        if pause:
            self._trial.stop.set()
        self._trial.answers.put(prune)

    def stop(self) -> None:
        self._is_stopping = True
        if self._trial is not None:
            self._trial.stop.set()

    def close(self) -> None:
        while self._thread is not None:
            for event in self.poll(1.0):
                if isinstance(event, Reported):
                    self.answer(event.key, prune=False)

    def _run(self, job: Job, trial: "InlineTrial") -> None:
        started = time.time()
        self._events.put(Started(job.key, 0, started))
        try:
            ended = self._ended(job, trial)
        except BaseException as error:  # like a worker
            line = "; ".join(f"{type(error).__name__}: {error}".splitlines())
            ended = {
                "state": "failed",
                "error": line,
                "traceback": "".join(traceback.format_exception(error)),
            }
        self._events.put(Ended(job.key, started=started, ended=time.time(), **ended))

    def _ended(self, job: Job, trial: "InlineTrial") -> dict[str, Any]:
        config = job.config or self._loader.load_sweep_config(self._config, list(job.overrides))
        if job.check is not None:
            try:
                check = hydra.utils.get_method(job.check.function)
            except ImportError as error:
                line = "; ".join(str(error).splitlines())
                return {"state": "failed", "error": f"{job.check}: {line}"}
            return {"state": "completed", "value": check(config) if job.check.is_called else None}
        with read_write(config.hydra.job), open_dict(config.hydra.job):
            config.hydra.job.id, config.hydra.job.num = job.key, job.number
        HydraConfig.instance().set_config(config)
        decided: list[str] = []

        def task(cfg: DictConfig) -> Any:
            try:
                return self._task_function(cfg)
            except (TrialPruned, TrialStopped) as decision:
                decided.append("pruned" if isinstance(decision, TrialPruned) else "stopped")
                return None

        set_current_trial(trial)
        try:
            done = run_job(
                task_function=task,
                config=masked_config(config),  # as a worker does
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self._context,
                configure_logging=False,
            )
        finally:
            set_current_trial(NoTrial())
        if isinstance(done._return_value, BaseException):
            raise done._return_value
        if decided:
            return {"state": decided[0]}
        return {"state": "completed", "value": done._return_value}


class InlineTrial:
    """The trial of the job that an `InlineEngine` runs."""

    threads: int | None = 1

    def __init__(self, job: Job, events: "queue.SimpleQueue[Event]") -> None:
        self.number: int | None = job.number
        self.attempt = job.attempt
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._key = job.key
        self._events = events

    def report(self, value: float | Sequence[float], step: int) -> bool:
        first, *others = value if isinstance(value, Sequence) else [value]
        self._events.put(Reported(self._key, step, float(first), tuple(map(float, others))))
        return self.answers.get()

    def set(self, **attributes: Any) -> None:
        self._events.put(AttributesSet(self._key, attributes))

    def should_stop(self) -> bool:
        return self.stop.is_set()


def plain_trials(study: optuna.Study) -> list[tuple[Any, ...]]:
    """Return the trials without times and ids, so that equal studies give equal lists."""
    return [
        (t.number, t.state, t.params, t.distributions, t.values, t.intermediate_values)
        for t in study.trials
    ]


def tree(folder: Path) -> Mapping[str, bytes]:
    """Return the contents of every file below a folder; for a link, its target."""
    return {
        str(path.relative_to(folder)): (
            str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


CRASH_CONF = """
    x: 1.0
    y: 0.0
    epochs: 6
    seconds: 0.02
    obedient: true
    """

# Deterministic; writes a checkpoint, and logs the start and end of every epoch.
CRASH_APP = """
import json
import os
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

from visionsweep.rundir.atomic import write_text
from visionsweep.sweep.trial import TrialPruned, TrialStopped, current_trial


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    trial = current_trial()
    folder = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = folder / "checkpoint.json"
    state = {"epoch": 0, "weight": 0.0, "best": -1e9}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())

    def note(word, epoch):
        for log in (folder / "epochs.log", Path(HydraConfig.get().sweep.dir) / "progress.log"):
            with log.open("a") as file:
                file.write(f"{word} {epoch} {os.getpid()} {trial.number}\\n")

    note("begin", state["epoch"])
    # The checkpoint may be ahead of the last report the controller received.
    if state["epoch"] and trial.report(state["best"], state["epoch"]):
        raise TrialPruned
    if cfg.obedient and state["epoch"] and trial.should_stop():
        raise TrialStopped
    for epoch in range(state["epoch"] + 1, cfg.epochs + 1):
        note("started", epoch)
        time.sleep(cfg.seconds)
        weight = 0.6 * state["weight"] + 0.4 * cfg.x
        value = -((weight - 1.0) ** 2) - abs(cfg.y) / epoch
        state = {"epoch": epoch, "weight": weight, "best": max(state["best"], value)}
        write_text(checkpoint, json.dumps(state))
        note("finished", epoch)
        if trial.report(state["best"], epoch):
            raise TrialPruned
        if cfg.obedient and trial.should_stop():
            raise TrialStopped
    return state["best"]


if __name__ == "__main__":
    main()
"""
