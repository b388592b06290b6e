"""Journal values in the form that MLflow accepts: names, parameter values, finite metrics.

Pure functions of one value, so that sending a record twice sends the same thing twice.
"""

import hashlib
import json
import math
import posixpath
import re

from visionsweep.text import shortened

MAX_KEY = 250  # MLflow's limits, mlflow/utils/validation.py
MAX_PARAM = 6000
MAX_TAG = 8000

_FORBIDDEN = re.compile(r"[^/\w.\- :]")


def safe_key(key: str) -> str:
    """Return a metric, parameter or tag name that MLflow accepts; a legal one stays as it is.

    A changed name ends in six hex digits of the original's hash, so that names stay distinct.
    """
    readable = _FORBIDDEN.sub("_", key)
    readable = "/".join(part if part.strip(".") else "_" for part in readable.split("/"))
    if readable == key and posixpath.normpath(key) == key and len(key) <= MAX_KEY:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:6]
    return f"{readable[: MAX_KEY - len(digest) - 1]}-{digest}"


def param_value(value: object) -> str:
    """Return a parameter as text: strings as they are, the rest as JSON (null, true, [1, 2]).

    Long text loses its middle; `config.yaml` has all of it.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, MAX_PARAM)


def finite_or_nan(value: float | str) -> float:
    """Return a metric's number; infinities become NaN, or -inf would be MLflow's best loss."""
    number = float(value)
    return number if math.isfinite(number) else math.nan
