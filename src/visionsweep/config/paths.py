"""Keys that hold paths: quoted for Hydra's grammar, made absolute in the config."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATH_KEYS = (
    "data.root",
    "data.path",
    "data.test_path",
    "data.cache_dir",
    "model.pretrained",
    "resume",
)

# A value of these characters needs no quotes in Hydra's override grammar.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+\-]*")
_WORDS = ("null", "true", "false", "none")  # `none`: data.cache_dir=none


def quote_path_override(argument: str, *, is_multirun: bool = False) -> str:
    """Return the command-line argument with its path quoted: `data.root=~/my photos (old)` works.

    Arguments of other keys, quoted values and interpolations are returned unchanged, and so is a
    list of paths to sweep over (unless one file has that name).
    """
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+~") not in PATH_KEYS or value[:1] in ("'", '"') or "${" in value:
        return argument
    expanded = os.path.expanduser(value)
    if _PLAIN.fullmatch(expanded):
        return f"{key}={expanded}"
    if is_multirun and "," in value and not Path(expanded).exists():
        return argument
    return f"{key}={quote(expanded)}"


def quote(value: str) -> str:
    """Return `value` as a quoted string of Hydra's override grammar."""
    # In a quoted string only a backslash before a quote (or at its end) is special.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"


def as_typed(value: str) -> str:
    """Return `value` as an override's right side, quoted if Hydra's grammar needs it."""
    return value if _PLAIN.fullmatch(value) else quote(value)


def shown(path: Path) -> str:
    """Return `path` as a person would type it: relative below the current directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def from_directory(path: str, directory: Path) -> str:
    """Return `path` with `~` expanded, and absolute as seen from `directory`."""
    return os.path.normpath(directory / os.path.expanduser(path))


def resolve_paths(config: dict[str, Any], directory: Path) -> None:
    """Make every path of the resolved `config` absolute, in place."""
    for key in PATH_KEYS:
        group, _, name = key.partition(".")
        node = config.get(group)
        if not name or not isinstance(node, Mapping):
            continue
        value = node.get(name)
        if isinstance(value, str) and value not in _WORDS:
            node[name] = from_directory(value, directory)  # type: ignore[index]
