"""The arguments of `train` before Hydra reads them."""

import json
import os
from pathlib import Path

from omegaconf import OmegaConf

from visionsweep.config.paths import PATH_KEYS, quote, quote_path_override
from visionsweep.program import fail
from visionsweep.rundir.layout import CONFIG, ENVIRONMENT, RESULT

_CONFIG_PATH = ("--config-path", "-cp")
_INFO = ("--cfg", "-c", "--help", "-h", "--info", "-i", "--hydra-help")


def prepare_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra: paths quoted, `resume=DIR` replaced by that run's overrides.

    Exits with one line if the arguments contradict each other.
    """
    is_multirun = any(a in ("-m", "--multirun", "hydra.mode=MULTIRUN") for a in arguments)
    arguments = [quote_path_override(argument, is_multirun=is_multirun) for argument in arguments]
    arguments = _absolute_config_path(arguments)
    if not any(argument in _INFO for argument in arguments):
        _refuse_misplaced(arguments, is_multirun=is_multirun)
    resume = [a for a in arguments if a.lstrip("+").startswith("resume=")]
    if not resume or resume[-1] == "resume=null":
        return arguments
    if is_multirun:
        fail(f"{resume[-1]}: resumes a single run; a sweep is resumed with --multirun study=NAME")
    others = [argument for argument in arguments if argument not in resume]
    return [*_stored_overrides(_unquote(resume[-1].partition("=")[2])), *others]


def _refuse_misplaced(arguments: list[str], *, is_multirun: bool) -> None:
    for argument in arguments:
        key = argument.partition("=")[0]
        if not is_multirun and key in ("sweep", "study"):
            fail(f"{argument}: belongs to a sweep; add --multirun")
        if is_multirun and key == "name":
            fail(f"{argument}: belongs to a single run; name a sweep with study=")


def _absolute_config_path(arguments: list[str]) -> list[str]:
    """Hydra would take a relative path from inside this package."""
    result = list(arguments)
    for index, argument in enumerate(arguments):
        flag, has_value, value = argument.partition("=")
        if flag in _CONFIG_PATH and has_value:
            result[index] = f"{flag}={_absolute(value)}"
        elif flag in _CONFIG_PATH and index + 1 < len(arguments):
            result[index + 1] = _absolute(arguments[index + 1])
    return result


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _stored_overrides(directory: str) -> list[str]:
    """Return the overrides that compose the run in `directory` again, in its directory."""
    run_dir = Path(directory).absolute()
    config, environment, result = (run_dir / name for name in (CONFIG, ENVIRONMENT, RESULT))
    if not config.is_file() or not environment.is_file():
        reason = f"holds no run (no {CONFIG} and {ENVIRONMENT})"
        reason = reason if run_dir.exists() else "does not exist"
        fail(
            f"resume: {directory} {reason}; "
            "give the directory that a run printed, e.g. resume=outputs/NAME"
        )
    state = json.loads(result.read_text(encoding="utf-8"))["state"] if result.is_file() else None
    if state in ("finished", "pruned"):
        how = "is already finished" if state == "finished" else "was pruned by its sweep"
        print(f"{directory} {how}: nothing to resume (its result: {result})")  # noqa: T201
        raise SystemExit(0)
    stored = OmegaConf.load(config)
    # Relative paths started from where the run was started; config.yaml has them absolute.
    kept = {key: OmegaConf.select(stored, key) for key in ("name", "study", *PATH_KEYS)}
    pinned = {key: value for key, value in kept.items() if isinstance(value, str)}
    pinned |= {"resume": str(run_dir), "hydra.run.dir": str(run_dir)}
    overrides = [
        override
        for override in json.loads(environment.read_text(encoding="utf-8"))["overrides"]
        if override.partition("=")[0] not in pinned
    ]
    return [*overrides, *(f"{key}={quote(value)}" for key, value in pinned.items())]


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value
