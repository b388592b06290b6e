"""Errors that a user can mend. The entry points print their message as one line, without a traceback."""


class UserError(Exception):
    """Base: the message names the key or path, the value, what was expected and what to do next."""


class ConfigError(UserError):
    """A setting is wrong, or cannot be honoured."""


class DataError(UserError):
    """The data is missing, unreadable, or does not fit the settings."""


class TrainingError(UserError):
    """Training cannot go on, for example because the loss is NaN."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, its type's name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
