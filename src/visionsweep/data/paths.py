"""Where data lies: user paths made absolute, and the folder for what can be rebuilt or downloaded again."""

import os
from pathlib import Path

from visionsweep.errors import ConfigError, DataError


def absolute(key: str, value: str) -> Path:
    """Path that the setting `key` names: `~` expanded, a relative one taken from the current directory."""
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody
        raise ConfigError(
            f"{key}: cannot expand {value!r} ({error}). Give an absolute path"
        ) from error


def require_folder(key: str, value: str | None, meaning: str) -> Path:
    """Absolute path of an existing folder; ConfigError when unset, DataError when it is not there."""
    path = _require(key, value, meaning)
    if not path.is_dir():
        raise DataError(f"{key}: {path} is not a folder. Expected {meaning}")
    return path


def require_file(key: str, value: str | None, meaning: str) -> Path:
    """Absolute path of an existing file; ConfigError when unset, DataError when it is not there."""
    path = _require(key, value, meaning)
    if not path.is_file():
        raise DataError(f"{key}: {path} is not a file. Expected {meaning}")
    return path


def _require(key: str, value: str | None, meaning: str) -> Path:
    if value is None or not value:
        raise ConfigError(f"{key} is not set: give {meaning} ({key}=...){_without_data(key)}")
    path = absolute(key, value)
    if not path.exists():
        raise DataError(
            f"{key}: {path} does not exist (cwd {Path.cwd()}). Set {key}=...{_without_data(key)}"
        )
    return path


def _without_data(key: str) -> str:
    return " or data=digits to try without data" if key in ("data.root", "data.path") else ""


def default_cache_dir() -> Path:
    """$XDG_CACHE_HOME/visionsweep, or ~/.cache/visionsweep."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative value is invalid and ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "visionsweep"
