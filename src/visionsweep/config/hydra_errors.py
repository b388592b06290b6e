"""Hydra's and OmegaConf's errors as one line: what is wrong, and what there is instead."""

import difflib
import itertools
from collections.abc import Iterator

from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

_MAX_OPTIONS = 40


def one_line(error: BaseException) -> str:
    """Return what an error of Hydra's or OmegaConf's says, with the names that the user may have meant."""
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
        said = [
            line for line in lines if not line.startswith(("Error when parsing index", "See https"))
        ]
        return f"{error.override}: not an override that Hydra understands: {'; '.join(said)}; quote the value"
    if isinstance(error, OmegaConfBaseException):  # what follows names types of ours
        return first
    lines = list(itertools.takewhile(lambda line: not line.startswith("Config search path"), lines))
    heads = [i for i, line in enumerate(lines) if line.startswith("Available options in")]
    if heads:
        wanted = first.rpartition("'")[0].rpartition("/")[2]
        return "; ".join([first, *lines[1 : heads[0]], _proposal(wanted, lines[heads[0] + 1 :])])
    return "; ".join([first, *lines[1:]])


def _proposal(wanted: str, options: list[str]) -> str:
    near = difflib.get_close_matches(wanted, options, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    more = ", ..." if len(options) > _MAX_OPTIONS else ""
    return f"{meant}choose one of {', '.join(options[:_MAX_OPTIONS])}{more}"


def _unknown_key(error: ConfigKeyError | ConfigAttributeError, advice: list[str]) -> str:
    """Return the line for an override of a key that the config does not have."""
    key, parent = str(error.key), error.parent_node
    full_key = str(error.full_key or key)
    where = full_key.removesuffix(key)
    names = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    names = [name for name in names if not name.startswith("_")]
    near = [where + name for name in difflib.get_close_matches(key, names, 1)]
    if (
        not near and not where and isinstance(parent, DictConfig)
    ):  # epochs=2, where it is trainer.epochs
        near = [path for path in _paths(parent) if path.rpartition(".")[2] == key]
    if near:
        hint = f"did you mean {' or '.join(near[:3])}?"
    else:
        hint = f"{where.rstrip('.') or 'the config'} has {', '.join(name for name in names if name != 'hydra')}"
    added = [
        line.partition(" use ")[2]
        for line in advice
        if line.startswith("To append to your config use ")
    ]
    return f"{full_key}: no such key; {hint}" + (
        f" (a new key is added with {added[0]})" if added else ""
    )


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, config):
        if name == "hydra" and not prefix:
            continue
        yield f"{prefix}{name}"
        if not (OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name)):
            node = config[name]
            if isinstance(node, DictConfig):
                yield from _paths(node, f"{prefix}{name}.")
