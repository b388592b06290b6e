"""The arguments of a verb that takes directories and settings: DIR [DIR ...] [KEY=VALUE ...]."""

from collections.abc import Collection, Sequence
from pathlib import Path

from visionsweep.errors import ConfigError
from visionsweep.text import did_you_mean


def split_arguments(argv: Sequence[str], keys: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Return the directories and the settings in `argv`.

    A directory may have a `=` in its name if it exists. Raises `ConfigError` if a setting is
    unknown, repeated or empty.
    """
    directories: list[str] = []
    given: dict[str, str] = {}
    for argument in argv:
        key, has_value, value = argument.partition("=")
        if not has_value or Path(argument).expanduser().exists():
            if argument.startswith("-"):
                raise ConfigError(f"{argument}: no such flag; settings are given as KEY=VALUE")
            directories.append(argument)
        elif key not in keys:
            raise ConfigError(
                f"{key}: no such key{did_you_mean(key, keys)} (keys: {', '.join(keys)})"
            )
        elif key in given:
            raise ConfigError(f"{key}: given twice; give it once")
        elif not value:
            raise ConfigError(f"{key}: got nothing after '='; leave the key out for its default")
        else:
            given[key] = value
    return directories, given
