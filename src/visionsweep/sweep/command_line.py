"""Commands for the user to type: how to resume a sweep, how to repeat a trial."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from visionsweep.program import program
from visionsweep.sweep.stored import override_key


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
