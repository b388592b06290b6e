"""Hydra's and OmegaConf's errors as one line: what is wrong, and what there is instead."""

import itertools
import re
from collections.abc import Iterator

from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from visionsweep.config.allowed import HOW_TO_ALLOW
from visionsweep.text import did_you_mean, first_line, nearest

_MAX_OPTIONS = 40
_REFUSED = re.compile(
    r"[Tt]arget '([^']+)'.*?(?:cannot be authorized|is not in the Hydra)", re.DOTALL
)
_PLACE = re.compile(r"^full_key: (.+)$", re.MULTILINE)


def one_line(error: BaseException) -> str:
    """Return the message of Hydra's or OmegaConf's error, with the names that may be meant."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if not lines:
        return one_line(cause) if cause is not None else type(error).__name__
    first = lines[0].removesuffix(".")
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and first.startswith(
        "Could not override"
    ):
        return _unknown_key(cause, lines[1:])
    if isinstance(cause, OmegaConfBaseException) and first.startswith("Error merging override "):
        return f"{first.removeprefix('Error merging override ')}: {one_line(cause)}"
    if isinstance(error, OverrideParseException):
        noise = ("Error when parsing index", "See https")
        reasons = "; ".join(line for line in lines if not line.startswith(noise))
        return f"{error.override}: Hydra cannot parse this override: {reasons}; quote the value"
    if isinstance(error, OmegaConfBaseException):  # what follows names types of ours
        key = str(error.full_key or "")
        return first if key in first else f"{key}: {first}"
    lines = list(itertools.takewhile(lambda line: not line.startswith("Config search path"), lines))
    heads = [i for i, line in enumerate(lines) if line.startswith("Available options in")]
    if not heads:
        return "; ".join([first, *lines[1:]])
    wanted, options = first.rpartition("'")[0].rpartition("/")[2], lines[heads[0] + 1 :]
    more = ", ..." if len(options) > _MAX_OPTIONS else ""
    return (
        f"{'; '.join([first, *lines[1 : heads[0]]])}{did_you_mean(wanted, options) or ';'} "
        f"choose one of {', '.join(options[:_MAX_OPTIONS])}{more}"
    )


def target_problem(error: BaseException) -> str:
    """Return why Hydra does not call a target: it is not in the program's allow-list, or else."""
    refused = _REFUSED.search(str(error))
    if refused is None:
        return first_line(error)
    return f"{refused[1]!r} is not in this program's allow-list (Hydra's execution_whitelist)"


def refused_target(error: BaseException) -> str | None:
    """Return the line for a target that Hydra refused, with its place; None for other errors."""
    if not _REFUSED.search(str(error)):
        return None
    place = _PLACE.search(str(error))
    where = place[1] if place else first_line(error).removeprefix("Unable to configure ")
    return f"{where}: {target_problem(error)}; {HOW_TO_ALLOW}"


def _unknown_key(error: ConfigKeyError | ConfigAttributeError, advice: list[str]) -> str:
    """Return the line for an override of a key that the config does not have."""
    key, parent = str(error.key), error.parent_node
    full_key = str(error.full_key or key)
    where = full_key.removesuffix(key)
    names = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    names = [name for name in names if not name.startswith("_")]
    near = []
    if not where and isinstance(parent, DictConfig):  # epochs=2 instead of trainer.epochs=2
        near = [path for path in _paths(parent) if path.rpartition(".")[2] == key]
    found = nearest(key, names)
    if not near and found is not None:
        near = [where + found]
    if near:
        hint = f"did you mean {' or '.join(near[:3])}?"
    else:
        known = ", ".join(name for name in names if name != "hydra")
        hint = f"{where.rstrip('.') or 'the config'} has {known}"
    add = "To append to your config use "
    added = [line.removeprefix(add) for line in advice if line.startswith(add)]
    hint += f" (add a new key with {added[0]})" if added else ""
    return f"{full_key}: no such key; {hint}"


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, config):
        if name == "hydra" and not prefix:
            continue
        yield f"{prefix}{name}"
        if not (OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name)):
            node = config[name]
            if isinstance(node, DictConfig):
                yield from _paths(node, f"{prefix}{name}.")
