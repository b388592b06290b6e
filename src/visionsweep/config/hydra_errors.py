"""Hydra's and OmegaConf's errors as one line: what is wrong, and what there is instead."""

import itertools
import re

from hydra.errors import OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from visionsweep.config.allowed import HOW_TO_ALLOW
from visionsweep.config.unknown_keys import unknown_key
from visionsweep.text import did_you_mean, first_line

_MAX_OPTIONS = 40
_REFUSED = re.compile(
    r"[Tt]arget '([^']+)'.*?(?:cannot be authorized|is not in the Hydra)", re.DOTALL
)
_RAISED = re.compile(r'^\w+ raised while resolving interpolation: "?(.*?)"?$')
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
        key = str(cause.key)
        add = "To append to your config use "
        added = [line.removeprefix(add) for line in lines[1:] if line.startswith(add)]
        return unknown_key(str(cause.full_key or key), key, cause.parent_node, *added[:1])
    if isinstance(cause, OmegaConfBaseException) and first.startswith("Error merging override "):
        return f"{first.removeprefix('Error merging override ')}: {first_line(cause)}"
    if isinstance(error, OverrideParseException):
        noise = ("Error when parsing index", "See https")
        reasons = "; ".join(line for line in lines if not line.startswith(noise))
        return f"{error.override}: Hydra cannot parse this override: {reasons}; quote the value"
    if isinstance(error, OmegaConfBaseException):  # what follows names types of ours
        key = str(error.full_key or "")
        first = _RAISED.sub(r"\1", first)
        return first if key in first else f"{key}: {first}"
    if first.endswith(" raised while composing config:"):  # a config file
        key = next((line[10:] for line in lines if line.startswith("full_key: ")), "")
        problem = "no such key" if "ConfigKeyError" in first else lines[1]
        return f"{first.rpartition(': ')[0]}: {key}: {problem}"
    if first.startswith("Multiple values for "):  # +experiment=x
        group = first.removeprefix("Multiple values for ").partition(".")[0]
        return f"+{group}=...: {group} is chosen already; leave out the +"
    lines = list(itertools.takewhile(lambda line: not line.startswith("Config search path"), lines))
    heads = [i for i, line in enumerate(lines) if line.startswith("Available options in")]
    if not heads:
        return "; ".join([first, *lines[1:]])
    wanted, options = first.rpartition("'")[0].rpartition("/")[2], lines[heads[0] + 1 :]
    group = lines[heads[0]].removeprefix("Available options in ").strip(":' ")
    more = ", ..." if len(options) > _MAX_OPTIONS else ""
    return (
        f"{'; '.join([first, *lines[1 : heads[0]]])}{did_you_mean(wanted, options) or ';'} "
        f"choose one of {', '.join(options[:_MAX_OPTIONS])}{more}"
        + (f"; of timm: {group}=timm {group}.name={wanted}" if "timm" in options else "")
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
