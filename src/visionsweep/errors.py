"""Errors that a user can mend. The entry points print their message as one line, without a traceback."""


class UserError(Exception):
    """Base: the message names the key or path, the value, what was expected and what to do next."""


class ConfigError(UserError):
    """A setting is wrong, or cannot be honoured."""


class DataError(UserError):
    """The data is missing, unreadable, or does not fit the settings."""


class TrainingError(UserError):
    """Training cannot go on, for example because the loss is NaN."""
