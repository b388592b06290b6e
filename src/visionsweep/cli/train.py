"""The command `train`: Hydra's main function, and its errors as one line."""

import os
import sys
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from visionsweep.cli.arguments import prepare_arguments
from visionsweep.config.build import allowed_targets
from visionsweep.config.hydra_errors import one_line
from visionsweep.errors import UserError
from visionsweep.masking import mask_logs
from visionsweep.program import command, fail
from visionsweep.rundir.result import Objective
from visionsweep.streams import keep_streams
from visionsweep.sweep.trial import current_trial

CONFIGS = "pkg://visionsweep.conf"  # a `conf/` in the current directory comes first
FULL_ERROR = "HYDRA_FULL_ERROR"


def main(arguments: list[str]) -> int:
    """Run Hydra's main function; a mistake of the user's is one line and exit code 1.

    Our own bugs keep their traceback. With HYDRA_FULL_ERROR=1, Hydra's errors keep theirs too.
    """
    mask_logs()
    keep_streams()
    sys.argv[1:] = prepare_arguments(arguments)
    run_hydra = hydra.main(CONFIGS, "config", execution_whitelist=allowed_targets())(run_experiment)
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # else Hydra prints its errors itself, over up to thirty lines
    try:
        run_hydra()
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
            f"{nulls[0]}: expected the name of an option of this config group; "
            f"see {command('train')} --help"
        )
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before
    return 0


def run_experiment(cfg: DictConfig) -> Objective:
    """Run one job and return its objective; with `objective.others`, a tuple of it and the others.

    In a single run, a mistake of the user's ends the process with one line and exit code 1. In a
    sweep it is raised, since an exit would end the whole sweep; `main` prints it as one line if it
    does end the sweep. Ctrl-C exits with 128 + the signal's number; a worker raises `Stopped`.
    """
    try:
        from visionsweep.run import Stopped, run  # torch takes seconds
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
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        fail(str(error))


def _exit_interrupted() -> NoReturn:
    print("interrupted before training began: there is nothing to resume")  # noqa: T201
    raise SystemExit(130)
