"""Errors that a user can fix. The entry points print their message as one line, no traceback."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


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
