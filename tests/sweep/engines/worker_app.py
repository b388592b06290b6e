"""A Hydra app for the tests of the engines: `do=NAME` calls `do_NAME`. Also looks at processes.

Imports no torch and no pytest, so that workers start fast.
"""

import ctypes
import gc
import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import psutil
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig

from visionsweep.errors import UserError
from visionsweep.machine import count_own_cores
from visionsweep.sweep.trial import TrialPruned, TrialStopped, current_trial

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def task(cfg: DictConfig) -> Any:
    return globals()[f"do_{cfg.do}"](cfg)


def sweep(sweep_dir: Path, *overrides: str) -> dict[str, Any]:
    """Return what a launcher gets from Hydra, for a sweep over a config of `do`, `x` and `file`."""
    from hydra._internal.callbacks import Callbacks

    conf = sweep_dir.parent / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "config.yaml").write_text("do: value\nx: 1\nfile: null\n", encoding="utf-8")
    given = [
        "hydra.mode=MULTIRUN",
        f"hydra.sweep.dir={sweep_dir}",
        "hydra.sweep.subdir=${hydra.job.id}",
        *overrides,
    ]
    with initialize_config_dir(str(conf), job_name="app"):
        config = compose("config", given, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
    context = HydraContext(
        config_loader=loader, callbacks=Callbacks(), execution_whitelist=["tests.*"]
    )
    return {"hydra_context": context, "config": config, "task_function": task}


def gone(pids: list[int], timeout_seconds: float = 30.0) -> bool:
    """Wait until none of the processes exists."""
    deadline = time.monotonic() + timeout_seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Return whether the process exists; a zombie does not, as a container may reap none."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check(cfg: DictConfig) -> Any:
    """The function that a job with `check` calls."""
    if cfg.x < 0:
        raise UserError("x: expected a positive number")
    print("from the check")
    logging.getLogger("app").warning("logged by it")
    return {"keys": sorted(cfg), "number": HydraConfig.get().job.num}


def do_value(cfg: DictConfig) -> float:
    return cfg.x * 2.0


def do_pid(cfg: DictConfig) -> int:
    return os.getpid()


def do_environment(cfg: DictConfig) -> dict[str, Any]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    shares = {"threads": current_trial().threads, "cores": count_own_cores()}
    return {name: os.environ.get(name) for name in names} | shares


def do_job(cfg: DictConfig) -> tuple[Any, ...]:
    job, trial = HydraConfig.get().job, current_trial()
    return job.num, job.id, trial.number, trial.attempt, dict(cfg)


def do_report(cfg: DictConfig) -> list[bool]:
    return [current_trial().report(value, step) for step, value in enumerate(cfg.x, 1)]


def do_set_attributes(cfg: DictConfig) -> None:
    current_trial().set(size=3)


def do_prune_when_told(cfg: DictConfig) -> float:
    if current_trial().report(0.5, 1):
        raise TrialPruned("at epoch 1")
    return 0.5


def do_raise(cfg: DictConfig) -> None:
    raise EXCEPTIONS[cfg.x]


class ForeignPruned(Exception):  # noqa: N818
    """Stands for Optuna's."""


ForeignPruned.__name__ = "TrialPruned"


class Unpicklable(Exception):  # noqa: N818
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.lock = threading.Lock()


class Silent(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise SystemExit(2)


EXCEPTIONS: dict[str, BaseException] = {
    "empty": ValueError(),
    "space": OSError(28, "No space left on device"),
    "quota": OSError(122, "Disk quota exceeded"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    "silent": Silent(),
    "bytes": ValueError("caf\udce9 \x1b[31m"),
    "value": ValueError("too\nlong"),
    "user": UserError("optim.lr: expected a number"),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "memory": MemoryError("no room"),
    "pruned": ForeignPruned("by optuna"),
    "stopped": TrialStopped("after epoch 2"),
    "unpicklable": Unpicklable(1, 2),
}


def do_return_lock(cfg: DictConfig) -> Any:
    return threading.Lock()


class _Big:
    """Stands for a model."""


_kept: "weakref.ref[_Big] | None" = None


class OneDay:
    """A number that cannot be converted."""

    def __float__(self) -> float:
        raise RuntimeError("not today")


def do_return_one_day(cfg: DictConfig) -> Any:
    return OneDay()


def do_print_any_text(cfg: DictConfig) -> None:
    print("caf\udce9")
    sys.stdout.buffer.write(b"caf\xe9\n")


def do_vandalize(cfg: DictConfig) -> None:
    """Change whatever a later job in this process depends on."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    os.environ["LOCAL_RANK"] = "0"
    os.environ.pop("PATH")
    os.umask(0o777)
    sys.argv[1:] = ["--multirun"]
    warnings.simplefilter("error")
    logging.disable()
    signal.alarm(1)
    sys.stdout.close()
    sys.stderr = io.StringIO()


def do_state(cfg: DictConfig) -> dict[str, Any]:
    mask = os.umask(0)
    os.umask(mask)
    warnings.warn("only a warning", stacklevel=1)
    logging.getLogger("app").info("logged")
    print("printed")
    return {
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "umask": mask,
        "alarm": signal.alarm(0),
    }


def do_argv(cfg: DictConfig) -> list[str]:
    return sys.argv


def do_fork_and_return(cfg: DictConfig) -> float:
    """Both processes return."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return 1.0


def do_orphan(cfg: DictConfig) -> None:
    """Leave a process whose parent has ended, in a session of its own."""
    start = (
        "import pathlib, subprocess, sys; "
        "pathlib.Path(sys.argv[1]).write_text(str(subprocess.Popen(sys.argv[2:]).pid))"
    )
    command = [sys.executable, "-c", start, cfg.file, *SLEEPER]
    subprocess.run(command, start_new_session=True, check=True)


def do_fail_with_big(cfg: DictConfig) -> None:
    global _kept
    gc.disable()  # it might clean up by chance
    big = _Big()
    _kept = weakref.ref(big)
    raise TrialPruned if cfg.x == "pruned" else ValueError


def do_big_is_gone(cfg: DictConfig) -> bool:
    gc.enable()
    return _kept is not None and _kept() is None


def do_talk(cfg: DictConfig) -> None:
    print("from print")
    os.write(1, b"from descriptor 1\n")
    os.write(2, b"from descriptor 2\n")
    ctypes.CDLL(None).puts(b"from C")
    warnings.warn("from warnings", stacklevel=1)
    logging.getLogger("app").info("from logging")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)


def do_sleep(cfg: DictConfig) -> None:
    print("before the end")  # must be in the log without a flush
    Path(cfg.file).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)


def do_wait(cfg: DictConfig) -> str:
    """End once the test has made the file."""
    while not Path(cfg.file).exists():
        time.sleep(0.01)
    return "seen"


def do_busy_with_child(cfg: DictConfig) -> None:
    """Compute forever, with a child in the worker's session and one in its own."""
    children = [subprocess.Popen(SLEEPER), subprocess.Popen(SLEEPER, start_new_session=True)]
    _write(cfg.file, [os.getpid(), *(child.pid for child in children)])
    while True:
        pass


def do_fork_and_sleep(cfg: DictConfig) -> None:
    """Sleep beside a forked child, which has copies of every descriptor."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    assert child.pid is not None
    _write(cfg.file, [os.getpid(), child.pid])
    time.sleep(600)


def do_exit(cfg: DictConfig) -> None:
    print("before the end")  # must be in the log without a flush
    os._exit(cfg.x)


def do_until_stopped(cfg: DictConfig) -> None:
    Path(cfg.file).touch()
    while not current_trial().should_stop():
        time.sleep(0.01)
    raise TrialStopped("after epoch 2")


def do_allocate(cfg: DictConfig) -> None:
    kept = bytearray(cfg.x * 1_000_000)
    kept[::4096] = b"x" * len(kept[::4096])  # touched, so that it is resident
    time.sleep(600)


def do_children(cfg: DictConfig) -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def _write(file: str, pids: list[int]) -> None:
    temporary = Path(f"{file}.new")
    temporary.write_text(" ".join(map(str, pids)), encoding="utf-8")
    temporary.rename(file)
