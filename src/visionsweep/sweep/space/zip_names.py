"""A zip as Optuna knows it, and as everything else does.

In a study, the keys of a zip are one categorical parameter, `zip(trainer.batch_size,optim.lr)`. Its
choices are JSON lists with a value for each key, such as `[16, 0.001]`. Everywhere else a trial has
the keys themselves. Name and choice say all that is needed to tell one from the other, so a study
can be read without the sweep that made it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_PREFIX, _END = "zip(", ")"  # no key of a config has parentheses


def name_of(keys: Sequence[str]) -> str:
    """Return the name of the parameter that moves `keys`."""
    return f"{_PREFIX}{','.join(keys)}{_END}"


def is_zip(name: str) -> bool:
    """Return whether this is the name of a zip, not of a key."""
    return name.startswith(_PREFIX) and name.endswith(_END)


def keys_of(name: str) -> tuple[str, ...]:
    """Return the keys that a parameter sets: those of a zip, otherwise its name."""
    return tuple(name[len(_PREFIX) : -len(_END)].split(",")) if is_zip(name) else (name,)


def choice_of(values: Sequence[Any]) -> str:
    """Return the choice of a zip that gives its keys these values, in their order."""
    return json.dumps(list(values), ensure_ascii=False)


def values_of(choice: str) -> list[Any]:
    """Return the values of the keys of a zip, in their order."""
    found: list[Any] = json.loads(choice)
    return found


def expand(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's parameters with the keys of each zip instead of the zip."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        values = values_of(value) if is_zip(name) else [value]
        found.update(zip(keys_of(name), values, strict=True))
    return found
