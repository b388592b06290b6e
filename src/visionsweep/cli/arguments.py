"""The arguments of `train` before Hydra reads them."""

import os
from pathlib import Path
from typing import Any

from visionsweep.cli import _hydra
from visionsweep.cli.confirm import confirm_overrides
from visionsweep.config.paths import PATH_KEYS
from visionsweep.config.typed_text import quote, quote_override
from visionsweep.errors import DataError
from visionsweep.program import command, fail
from visionsweep.rundir.description import holds_run, read_config, read_environment
from visionsweep.rundir.layout import CONFIG, ENVIRONMENT, RESULT
from visionsweep.rundir.result import read_result
from visionsweep.text import is_masked, nearest
from visionsweep.tracking.ack import known_uris

_CONFIG_PATH = ("--config-path", "-cp")
_ACTIONS = (
    *("--run", "-r", "--multirun", "-m", "--cfg", "-c"),
    *("--info", "-i", "--shell-completion", "-sc"),
)
_INFO = ("--cfg", "-c", "--help", "-h", "--info", "-i", "--hydra-help")


def prepare_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra: text quoted, `resume=DIR` and `confirm=DIR` replaced.

    Exits with one line if the arguments contradict each other.
    """
    is_multirun = any(a in ("-m", "--multirun", "hydra.mode=MULTIRUN") for a in arguments)
    _refuse_flags(arguments)
    arguments = [quote_override(argument, is_multirun=is_multirun) for argument in arguments]
    arguments = _absolute_config_path(arguments)
    if not any(argument in _INFO for argument in arguments):
        _refuse_misplaced(arguments, is_multirun=is_multirun)
    confirm = [a for a in arguments if a.startswith("confirm=")]
    if confirm:
        if not is_multirun:
            fail(f"{confirm[-1]}: belongs to a sweep; add --multirun")
        others = [argument for argument in arguments if argument not in confirm]
        directory = _unquote(confirm[-1].partition("=")[2])
        return [*confirm_overrides(directory, others), *others]
    resume = [a for a in arguments if a.lstrip("+").startswith("resume=")]
    if not resume or resume[-1] == "resume=null":
        return arguments
    if is_multirun:
        fail(f"{resume[-1]}: resumes a single run; a sweep is resumed with --multirun study=NAME")
    others = [argument for argument in arguments if argument not in resume]
    return [*_stored_overrides(_unquote(resume[-1].partition("=")[2]), others), *others]


def _refuse_misplaced(arguments: list[str], *, is_multirun: bool) -> None:
    for argument in arguments:
        key = argument.partition("=")[0]
        if not is_multirun and key in ("sweep", "study"):
            fail(f"{argument}: belongs to a sweep; add --multirun")
        if is_multirun and key == "name":
            fail(f"{argument}: belongs to a single run; name a sweep with study=")


def _refuse_flags(arguments: list[str]) -> None:
    """Exit with the setting that `--epochs 5` may mean, or if Hydra takes only one of two flags."""
    actions = [argument for argument in arguments if argument.partition("=")[0] in _ACTIONS]
    if len(actions) > 1:
        fail(f"{actions[1]}: cannot be used together with {actions[0]}; give one of them")
    flags = _hydra.unknown_flags(arguments)
    if not flags:
        return
    flag, has_value, value = flags[0].partition("=")
    position = arguments.index(flags[0])
    following = arguments[position + 1 : position + 2]
    if not has_value and following and "=" not in following[0] and not following[0].startswith("-"):
        value = following[0]
    name = flag.lstrip("-").replace("-", "_")
    keys = _hydra.composed_keys()
    near = [key for key in keys if key == name or key.endswith(f".{name}")]
    found = nearest(name, (key.rpartition(".")[2] for key in keys))
    near = near or [key for key in keys if found and key.rpartition(".")[2] == found]
    meant = " or ".join(f"{key}={value or '...'}" for key in near[:3])
    hint = f"did you mean {meant}?" if meant else f"{command('train')} --help has the keys"
    fail(f"{flag}: no such flag; settings are given as KEY=VALUE; {hint}")


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


def _stored_overrides(directory: str, given: list[str]) -> list[str]:
    """Return the overrides that compose the run in `directory` again, in its directory.

    A password is not stored: exits with one line unless `given` has it again.
    """
    run_dir = Path(directory).absolute()
    if not holds_run(run_dir):
        reason = f"holds no run (no {CONFIG} and {ENVIRONMENT})"
        reason = reason if run_dir.exists() else "does not exist"
        fail(
            f"resume: {directory} {reason}; "
            "give the directory that a run printed, e.g. resume=outputs/NAME"
        )
    try:
        stored, environment = read_config(run_dir), read_environment(run_dir)
    except DataError as error:
        fail(f"resume: {error}")
    state = (read_result(run_dir) or {}).get("state")
    if state in ("finished", "pruned"):
        how = "is already finished" if state == "finished" else "was pruned by its sweep"
        known = {*map(str, environment["overrides"])}
        new = [item for item in given if not item.startswith("-") and item not in known]
        if new:
            fail(
                f"resume: {directory} {how}, so {' '.join(new)} would have no effect; start a new "
                "run with it"
            )
        print(f"{directory} {how}: nothing to resume (its result: {run_dir / RESULT})")  # noqa: T201
        raise SystemExit(0)
    # Relative paths started from where the run was started; config.yaml has them absolute.
    kept = {key: _typed(stored, key) for key in ("name", "study", *PATH_KEYS)}
    pinned = {key: value for key, value in kept.items() if isinstance(value, str)}
    pinned |= {"resume": str(run_dir), "hydra.run.dir": str(run_dir)}
    replaced = {*pinned, *map(_key, given)}
    if "tracking" in replaced or any(not is_masked(uri) for uri in known_uris(run_dir)):
        replaced.add("tracking.uri")  # another store, or that which the run began in
    overrides = [
        override
        for override in map(str, environment["overrides"])
        if _key(override) not in replaced
    ]
    for override in filter(is_masked, overrides):
        fail(
            f"resume: {_key(override)} held a password, which is not stored; give it again: "
            f"{command('train')} resume={directory} {_key(override)}=..."
        )
    flags = [override for override in overrides if override.startswith("-")]
    if flags:
        fail(
            f"resume: {run_dir / ENVIRONMENT} holds '{flags[0]}', which is no override; "
            "start a new run"
        )
    return [*overrides, *(f"{key}={quote(value)}" for key, value in pinned.items())]


def _typed(config: Any, key: str) -> Any:
    """Return a value of config.yaml with its interpolations as typed."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value
