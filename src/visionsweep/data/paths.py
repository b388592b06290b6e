"""Paths of data: the user's made absolute, and the cache folder."""

import os
from pathlib import Path

from visionsweep.errors import ConfigError, DataError


def absolute(key: str, value: str) -> Path:
    """Return the value of the setting `key` as an absolute path, `~` expanded."""
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody
        raise ConfigError(
            f"{key}: cannot expand {value!r} ({error}); give an absolute path"
        ) from error


def require_folder(key: str, value: str | None, meaning: str) -> Path:
    """Return the absolute path of a folder. Raises ConfigError if unset, DataError if missing."""
    path = _require(key, value, meaning)
    if not path.is_dir():
        raise DataError(f"{key}: expected {meaning}, but {path} is not a folder")
    return path


def require_file(key: str, value: str | None, meaning: str) -> Path:
    """Return the absolute path of a file. Raises ConfigError if unset, DataError if missing."""
    path = _require(key, value, meaning)
    if not path.is_file():
        raise DataError(f"{key}: expected {meaning}, but {path} is not a file")
    return path


def _require(key: str, value: str | None, meaning: str) -> Path:
    if not value:
        raise ConfigError(
            f"{key} is not set: set it to {meaning}, or use data=digits to try without data"
        )
    path = absolute(key, value)
    if not path.exists():
        raise DataError(
            f"{key}: {path} does not exist (current directory: {Path.cwd()}); set it to {meaning}"
        )
    return path


def default_cache_dir() -> Path:
    """Return $XDG_CACHE_HOME/visionsweep, or ~/.cache/visionsweep."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification, a relative value is invalid and ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "visionsweep"
