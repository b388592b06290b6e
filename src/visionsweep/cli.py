"""The command line around Hydra: what it does before Hydra reads the arguments, and how errors reach the user."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import visionsweep.config.schema  # noqa: F401 - registers the schema before Hydra composes
from visionsweep.callback import fail
from visionsweep.config.hydra_errors import one_line
from visionsweep.config.paths import PATH_KEYS, quote, quote_path_override
from visionsweep.errors import UserError
from visionsweep.rundir.result import Objective
from visionsweep.sweep.trial import current_trial

FULL_ERROR = "HYDRA_FULL_ERROR"
INTERRUPTED = "interrupted before training began: there is nothing to resume"


def prepare_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra: paths quoted, `resume=DIR` turned into the overrides of that run.

    Ends the command with one line where the arguments cannot be meant.
    """
    is_multirun = any(a in ("-m", "--multirun") or a == "hydra.mode=MULTIRUN" for a in arguments)
    arguments = [quote_path_override(argument, is_multirun=is_multirun) for argument in arguments]
    is_info = any(
        a in ("--cfg", "-c", "--help", "-h", "--info", "-i", "--hydra-help") for a in arguments
    )
    if not is_multirun and not is_info:
        for argument in arguments:
            if argument.partition("=")[0] in ("sweep", "study"):
                fail(f"{argument}: belongs to a sweep; add --multirun")
    if is_multirun and not is_info:
        for argument in arguments:
            if argument.startswith("name="):
                fail(f"{argument}: belongs to a single run; a sweep is named with study=")
    given = [a.lstrip("+") for a in arguments if a.lstrip("+").startswith("resume=")]
    if not given or given[-1] == "resume=null":
        return arguments
    if is_multirun:
        fail(
            f"{given[-1]}: resumes one run, without --multirun; a sweep is taken up with study=NAME"
        )
    others = [a for a in arguments if not a.lstrip("+").startswith("resume=")]
    return [*_stored_overrides(_unquote(given[-1].partition("=")[2])), *others]


def _stored_overrides(directory: str) -> list[str]:
    """Return the overrides that compose the run in `directory` again, in its directory."""
    run_dir = Path(directory).absolute()
    config, environment, result = (
        run_dir / n for n in ("config.yaml", "environment.json", "result.json")
    )
    if not config.is_file() or not environment.is_file():
        reason = (
            "does not exist"
            if not run_dir.exists()
            else "holds no run (no config.yaml and environment.json)"
        )
        fail(
            f"resume: {directory} {reason}; give the directory that a run printed, e.g. resume=outputs/NAME"
        )
    state = json.loads(result.read_text(encoding="utf-8"))["state"] if result.is_file() else None
    if state in ("finished", "pruned"):
        what = "is finished already" if state == "finished" else "was pruned by its sweep"
        print(f"{directory} {what}: nothing to resume (its result: {result})")  # noqa: T201
        raise SystemExit(0)
    stored = OmegaConf.load(config)
    # Relative paths were meant from where the run was started: config.yaml has them absolute.
    kept = {key: OmegaConf.select(stored, key) for key in ("name", "study", *PATH_KEYS)}
    pinned = {key: value for key, value in kept.items() if isinstance(value, str)}
    pinned |= {"resume": str(run_dir), "hydra.run.dir": str(run_dir)}
    overrides = [
        override
        for override in json.loads(environment.read_text(encoding="utf-8"))["overrides"]
        if override.partition("=")[0] not in (*pinned, "resume", "hydra.run.dir")
    ]
    return [*overrides, *(f"{key}={quote(value)}" for key, value in pinned.items())]


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value


def run_experiment(cfg: DictConfig) -> Objective:
    """Run one job and return its objective; with `objective.others`, a tuple of it and the others.

    A mistake of the user's ends a single run with one line and exit code 1. In a sweep it is raised (an exit would end
    the whole sweep), and `start` prints it as one line if it does end the sweep. Ctrl-C ends either with
    128 + the signal's number; in a worker, `Stopped` is raised instead.
    """
    try:
        from visionsweep.run import Stopped, run  # torch, which takes its seconds
    except KeyboardInterrupt:
        print(INTERRUPTED)  # noqa: T201
        raise SystemExit(130) from None

    try:
        return run(cfg)
    except KeyboardInterrupt:
        print(INTERRUPTED)  # noqa: T201
        raise SystemExit(130) from None
    except Stopped as stopped:
        if current_trial().number is not None:
            raise
        print(stopped)  # noqa: T201
        raise SystemExit(128 + stopped.signal_number) from None
    except UserError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        fail(str(error))


def start(main: Callable[[], object]) -> None:
    """Run Hydra's `main` on this process's arguments; what the user can mend ends it with one line and exit code 1.

    Our own bugs keep their traceback. With HYDRA_FULL_ERROR=1, Hydra's errors keep theirs too.
    """
    sys.argv[1:] = prepare_arguments(sys.argv[1:])
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # else Hydra prints its errors itself, over up to thirty lines
    try:
        main()
    except UserError as error:
        fail(str(error))
    except CompactHydraException as error:
        if before == "1":
            raise
        fail(one_line(error))
    except ValueError as error:
        nulls = [a for a in sys.argv[1:] if a.endswith("=null") and "." not in a]
        if before == "1" or not nulls or not str(error).startswith("Config group override must be"):
            raise
        fail(
            f"{nulls[0]}: expected the name of an option of this config group; see python train.py --help"
        )
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before
