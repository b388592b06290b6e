"""The arguments of a verb that takes directories and settings: DIR [DIR ...] [KEY=VALUE ...]."""

from collections.abc import Collection, Sequence
from pathlib import Path

from visionsweep.errors import ConfigError
from visionsweep.text import did_you_mean


def split_arguments(
    argv: Sequence[str], keys: Collection[str]
) -> tuple[list[Path], dict[str, str]]:
    """Return the directories and the settings in `argv`.

    `[A,B]` is several directories. One may have a `=` in its name if it exists. Raises
    `ConfigError` if a setting is unknown, repeated or empty.
    """
    directories: list[Path] = []
    given: dict[str, str] = {}
    for argument in argv:
        key, has_value, value = argument.partition("=")
        if not has_value or _is_list(argument) or Path(argument).expanduser().exists():
            if argument.startswith("-"):
                raise ConfigError(f"{argument}: no such flag; settings are given as KEY=VALUE")
            directories += [Path(name).expanduser() for name in _listed(argument)]
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


def _is_list(argument: str) -> bool:
    return argument.startswith("[") and argument.endswith("]") and not Path(argument).exists()


def _listed(argument: str) -> list[str]:
    """Return the items of `[A,B]`, or the argument itself."""
    if not _is_list(argument):
        return [argument]
    return [item.strip() for item in argument[1:-1].split(",") if item.strip()]
