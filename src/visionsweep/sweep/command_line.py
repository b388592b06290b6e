"""Commands for the user to type: how to resume a sweep, how to repeat a trial."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from visionsweep.config.typed_text import as_typed
from visionsweep.sweep.stored import override_key
from visionsweep.text import is_masked

_FIND_THE_SWEEPER = ("hydra/sweeper", "hydra.searchpath")
_OF_SWEEPS = ("hydra.sweeper.", "hydra.launcher.", "hydra.sweep.", "hydra.mode.")


def command_of(program: str, overrides: Sequence[str]) -> str:
    """Return the command that runs `program` with plain overrides, quoted for a shell."""
    return " ".join([program, *map(shlex.quote, overrides)])


def resume_overrides(
    sweep_dir: Path,
    hydra_overrides: Sequence[str],
    group_overrides: Sequence[str],
    study_key: str | None,
    leads_here: Callable[[Sequence[str]], bool],
) -> list[str]:
    """Return the overrides that resume a sweep: those that find it, the rest is stored.

    ``leads_here`` tells whether they choose this sweeper. If not, a choice of a config group does,
    as in `hparams_search=mnist`. One without its password is for the user to complete.
    """
    is_named = study_key is not None and not any(
        override_key(override) == "hydra.sweep.dir" for override in hydra_overrides
    )
    words = [
        *(o for o in hydra_overrides if override_key(o) in _FIND_THE_SWEEPER or is_masked(o)),
        f"{study_key}={as_typed(sweep_dir.name)}"
        if is_named
        else f"hydra.sweep.dir={as_typed(str(sweep_dir))}",
    ]
    has_sweeper = any(override_key(word) == "hydra/sweeper" for word in words)
    if has_sweeper or not group_overrides or leads_here(words):
        return words
    return [*group_overrides, *words]


def single_run_overrides(hydra_overrides: Sequence[str]) -> list[str]:
    """Return the overrides of Hydra itself that a single run needs too."""
    return [
        override
        for override in hydra_overrides
        if not f"{override_key(override)}.".replace("/", ".").startswith(_OF_SWEEPS)
    ]
