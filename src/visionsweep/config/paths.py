"""Keys that hold paths, which are absolute in the config of a run."""

import os
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

_WORDS = ("null", "true", "false", "none")  # `none`: data.cache_dir=none


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
