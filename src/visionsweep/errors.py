"""Errors that a user can fix. The entry points print their message as one line, no traceback."""

import errno
from collections.abc import Iterator

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
_OUT_OF_SPACE = (
    *("no space left on device", "disk quota exceeded", "disk is full"),
    "inline_container.cc",  # torch, when a checkpoint ends before all of it is written
)


class UserError(Exception):
    """Base. The message has the key or path, the value, what was expected and what to do next."""


class ConfigError(UserError):
    """A setting is wrong, or cannot be honoured."""


class DataError(UserError):
    """The data is missing, unreadable, or does not fit the settings."""


class TrainingError(UserError):
    """Training cannot continue, for example because the loss is NaN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, which says nothing about the configuration.

    torch's own exception is known by its name, so that torch need not be imported; in places torch
    raises a plain RuntimeError instead.
    """
    if isinstance(error, MemoryError):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return type(error) is RuntimeError and any(m in str(error).lower() for m in _OUT_OF_MEMORY)


def is_out_of_space(error: BaseException) -> bool:
    """Return whether a disk or a quota is full, which says nothing about the configuration."""
    for link in chain(error):
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if type(link) is RuntimeError or type(link).__module__ != "builtins":  # torch, databases
            try:
                text = str(link).lower()
            except (Exception, SystemExit):  # of the error's own
                continue
            if any(phrase in text for phrase in _OUT_OF_SPACE):
                return True
    return False


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
