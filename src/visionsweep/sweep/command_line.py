"""Commands for the user to type: how to resume a sweep, how to repeat a trial."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from visionsweep.sweep.stored import override_key

# Hydra's flags that say which config is read.
_CONFIG_FLAGS = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")


def program() -> str:
    """Return what started this process, as one types it, with Hydra's config flags."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.origin == sys.argv[0]:
        words = ["-m", main.name.removesuffix(".__main__")]
    else:
        words = [os.path.relpath(sys.argv[0]) if sys.argv[0] else "app.py"]
    for word, following in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=False):
        name, has_value, _ = word.partition("=")
        if name in _CONFIG_FLAGS:
            words += [word] if has_value else [word, following]
    return " ".join(["python", *map(shlex.quote, words)])


def command_of(program: str, overrides: Sequence[str]) -> str:
    """Return the command that runs `program` with plain overrides, quoted for a shell."""
    return " ".join([program, *map(shlex.quote, overrides)])


def resume_command(sweep_dir: Path, hydra_overrides: Sequence[str], study_key: str | None) -> str:
    """Return the command that resumes a sweep."""
    kept = ("hydra/sweeper", "hydra.searchpath", "hydra.sweep.dir")
    words = [override for override in hydra_overrides if override_key(override) in kept]
    if not any(override_key(word) == "hydra.sweep.dir" for word in words):
        words.append(
            f"hydra.sweep.dir={sweep_dir}" if study_key is None else f"{study_key}={sweep_dir.name}"
        )
    return command_of(f"{program()} --multirun", words)


def shown_path(path: Path) -> str:
    """Return a path as one types it: relative if it lies below the current directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
