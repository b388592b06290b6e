"""Values, names and errors as short text for people. Pure functions; imports nothing heavy."""

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"

# `scheme://USER:PASSWORD@`. A password may hold what ends a URL elsewhere, such as "@", "/" and
# ",": it reaches to the last "@" before a space or the next URL of a list. Hydra writes "\\:".
_LOGIN = re.compile(
    r"""(?<![\w+.-])(?P<head>(?P<scheme>[A-Za-z][\w+.-]{0,40})\\*://)
    (?P<user>(?:\$\{[^{}\s]*\}|[^\s:/@'"\\])*)
    (?:(?P<colon>\\*:)(?P<password>(?:(?!(?<=[,;'"=(\[{])[A-Za-z][\w+.-]{0,40}\\*://)\S)*))?@""",
    re.VERBOSE,
)
# `?password=...` of a URL, and `password=...` of a libpq or ODBC string.
_NAMED = re.compile(
    r"""((?:[?&;][\w.-]*(?:passw(?:or)?d|pwd|token|secret|credential|signature|(?:api|access)_?key|
    odbc_connect)[\w.-]*|\bpassw(?:or)?d)\s?=\s?)((?:[^\s&;'"]|['"](?=\w))+)""",
    re.VERBOSE | re.IGNORECASE,
)
_DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle")
_REFERENCE = re.compile(r"(?:\$\{[^{},]*\})+")  # ${oc.env:PASSWORD} is no secret


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its type if it has none.

    Passwords are masked: a driver may quote the address that it was given.
    """
    return mask_passwords((message(error).strip() or type(error).__name__).splitlines()[0])


def message(error: BaseException) -> str:
    """Return an error's text; nothing if its ``__str__`` raises."""
    try:
        return printable(str(error))
    except (Exception, SystemExit):
        return ""


def printable(text: str) -> str:
    """Return `text` with escapes for what cannot be shown, such as lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that resembles `name` most; None if none does."""
    # 0.5, so that a name of two letters with one wrong still finds its neighbour
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` with the nearest of `names`; nothing if none is near."""
    found = nearest(name, names)
    return "" if found is None else f"; did you mean {found}?"


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters, cut in the middle: names often differ at their end."""
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 2
    return f"{text[: limit - 3 - tail]}...{text[len(text) - tail :]}"


def param_text(value: Any) -> str:
    """Return a parameter's value as Hydra spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def short_value(value: Any, digits: int = 3, limit: int = 60) -> str:
    """Return a parameter's value to look at: a few significant digits, long text shortened."""
    if isinstance(value, float) and math.isfinite(value):
        text = f"{value:.{digits if abs(value) < 10**digits else 6}g}"
        # 0.0001 is easier to read than 1e-04, and 1e-5 than 1e-05
        return text.replace("e-0", "e-").replace("e+0", "e+")
    return shortened(" ".join(param_text(value).splitlines()), limit)


def params_text(params: Mapping[str, Any]) -> str:
    """Return ``key=value`` of each parameter, short: to look at, not to type again."""
    return " ".join(f"{key}={short_value(value)}" for key, value in params.items())


def objective_text(value: float | None) -> str:
    """Return an objective with four decimals; counts whole, tiny values with four digits."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        is_count = float(value).is_integer() and abs(value) < 1e12
        return f"{value:.0f}" if is_count else f"{value:.6g}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.4g}"


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units: ``4.2 s``, ``3 min 05 s``, ``2 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min {rest:02d} s"
    days, hours = divmod(hours, 24)
    return f"{hours} h {minutes:02d} min" if days == 0 else f"{days} d {hours:02d} h"


def counted(number: int, noun: str) -> str:
    """Return ``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """Return the URL of an SQLite file whose name may hold what has a meaning in a URL."""
    return f"sqlite:///{os.fspath(path).replace('%', '%25').replace('?', '%3F')}"


def mask_passwords(text: str) -> str:
    """Return `text` with every password in it as ``***``, and a token that stands for a user.

    Knows ``scheme://user:password@host``, ``https://token@host`` and ``?password=...``. An
    interpolation such as ``${oc.env:PASSWORD}`` stays. Masking twice changes nothing.
    """
    if "://" in text:
        text = _LOGIN.sub(_mask_login, text)
    return _NAMED.sub(_mask_named, text) if "=" in text else text


def masked(value: Any) -> Any:
    """Return `value` with the passwords in all of its texts masked, in mappings and lists too."""
    if isinstance(value, str):
        return mask_passwords(value)
    if isinstance(value, Mapping):
        return {key: masked(item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list | tuple) else value


def is_masked(text: str) -> bool:
    """Return whether `text` lacks a password that `mask_passwords` took out."""
    return f"{MASK}@" in text or f"={MASK}" in text


def _mask_login(match: re.Match[str]) -> str:
    head, scheme, user, colon, password = match.group("head", "scheme", "user", "colon", "password")
    if password and _REFERENCE.fullmatch(password):
        return match[0]
    if password:
        return f"{head}{user}{colon}{MASK}@"
    # A database may need no password. Elsewhere a user without one is a token.
    is_token = user and not scheme.startswith(_DATABASES) and not _REFERENCE.fullmatch(user)
    return f"{head}{MASK}@" if is_token else match[0]


def _mask_named(match: re.Match[str]) -> str:
    return match[0] if _REFERENCE.fullmatch(match[2]) else f"{match[1]}{MASK}"
