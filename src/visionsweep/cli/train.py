"""The command `train`: Hydra's main function, and its errors as one line."""

import os
import sys
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from visionsweep.cli import _hydra
from visionsweep.cli.arguments import prepare_arguments
from visionsweep.config.allowed import hydra_targets
from visionsweep.config.hydra_errors import one_line, refused_target
from visionsweep.config.hydra_settings import check_hydra_settings, check_logging
from visionsweep.errors import UserError
from visionsweep.machine import wait_passively
from visionsweep.masking import mask_logs
from visionsweep.program import command, fail
from visionsweep.rundir.result import Objective
from visionsweep.streams import keep_streams
from visionsweep.sweep.trial import current_trial

CONFIGS = "pkg://visionsweep.conf"  # a `conf/` in the current directory comes first
FULL_ERROR = "HYDRA_FULL_ERROR"

_hydra.check_logging_with(check_logging)  # here, since workers import this module, too


def main(arguments: list[str]) -> int:
    """Run Hydra's main function; a mistake of the user's is one line and exit code 1.

    Our own bugs keep their traceback. With HYDRA_FULL_ERROR=1, Hydra's errors keep theirs too.
    """
    mask_logs()
    keep_streams()
    wait_passively()
    sys.argv[1:] = prepare_arguments(arguments)
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # else Hydra prints its errors itself, over up to thirty lines
    try:
        run_hydra = hydra.main(CONFIGS, "config", execution_whitelist=hydra_targets())
        _hydra.trust_no_packages()
        run_hydra(run_experiment)()
    except UserError as error:
        fail(str(error))
    except CompactHydraException as error:
        if before == "1":
            raise
        fail(one_line(error))
    except (ValueError, InstantiationException) as error:
        if before == "1":
            raise
        message = refused_target(error) or _null_group(error)
        if message is None:
            raise
        fail(message)
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before
    return 0


def _null_group(error: Exception) -> str | None:
    nulls = [a for a in sys.argv[1:] if a.endswith("=null") and "." not in a]
    if not nulls or not str(error).startswith("Config group override must be"):
        return None
    return (
        f"{nulls[0]}: expected the name of an option of this config group; "
        f"see {command('train')} --help"
    )


def run_experiment(cfg: DictConfig) -> Objective:
    """Run one job and return its objective; with `objective.others`, a tuple of it and the others.

    In a single run, a mistake of the user's ends the process with one line and exit code 1. In a
    sweep it is raised, since an exit would end the whole sweep; `main` prints it as one line if it
    does end the sweep. Ctrl-C exits with 128 + the signal's number; a worker raises `Stopped`.
    """
    try:
        check_hydra_settings(HydraConfig.get())
        from visionsweep.run import Stopped, run  # torch takes seconds
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        _exit_interrupted()
    try:
        return run(cfg)
    except KeyboardInterrupt:
        _exit_interrupted()
    except Stopped as stopped:
        if current_trial().number is not None:
            raise
        print(stopped)  # noqa: T201
        raise SystemExit(128 + stopped.signal_number) from None
    except UserError as error:
        _fail(error)


def _fail(error: UserError) -> NoReturn:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise error
    fail(str(error))


def _exit_interrupted() -> NoReturn:
    print("interrupted before training began: there is nothing to resume")  # noqa: T201
    raise SystemExit(130)
