"""How this process was started, as one types it, and how a mistake of the user's ends it."""

import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from visionsweep.text import mask_passwords

_PROGRAMS = ("visionsweep", "python -m visionsweep")
# Hydra's flags that say which config it reads
_CONFIG_FLAGS = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")


def start_verb(script: str, verb: str, arguments: list[str]) -> None:
    """Make ``sys.argv`` that of a script of its own, e.g. ``visionsweep train``.

    Hydra and argparse read it, and every worker gets a copy. ``script`` is the ``sys.argv[0]`` of
    the program itself.
    """
    is_module = Path(script).name == "__main__.py"
    sys.argv = [f"{_PROGRAMS[is_module]} {verb}", *arguments]


def command(verb: str) -> str:
    """Return how one types a verb here: ``visionsweep sync``; ``python sync.py`` in a checkout."""
    script = Path(sys.argv[0])
    for name in _PROGRAMS:
        if str(script).startswith(f"{name} "):
            return f"{name} {verb}"
    scripts = [script.with_name(f"{name}.py") for name in ("train", "predict", "sync")]
    sibling = script.with_name(f"{verb}.py")
    if script in scripts and (sibling == script or sibling.is_file()):
        return f"python {shlex.quote(os.path.relpath(sibling))}"
    return f"{_PROGRAMS[0]} {verb}"


def config_flags() -> list[str]:
    """Return the arguments of this process that tell Hydra which config to read."""
    found = []
    for word, following in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=False):
        name, has_value, _ = word.partition("=")
        if name in _CONFIG_FLAGS:
            found += [word] if has_value else [word, following]
    return found


def program() -> str:
    """Return what started this process, an app of any kind, with its flags that name a config."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if sys.argv[0].startswith(tuple(f"{name} " for name in _PROGRAMS)):
        words = sys.argv[0].split()
    elif main is not None and main.origin == sys.argv[0]:
        words = ["python", "-m", main.name.removesuffix(".__main__")]
    else:
        words = ["python", os.path.relpath(sys.argv[0]) if sys.argv[0] else "app.py"]
    return shlex.join([*words, *config_flags()])


def fail(message: str) -> NoReturn:
    """End the process with one line and exit code 1."""
    print(f"error: {mask_passwords(message)}", file=sys.stderr)  # noqa: T201 - the terminal is where this belongs
    raise SystemExit(1)
