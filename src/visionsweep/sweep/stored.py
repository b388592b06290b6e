"""`sweep.yaml`: what a sweep was started with. A later command is merged onto it, compared, and only then runs."""

import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from visionsweep.errors import ConfigError
from visionsweep.program import program
from visionsweep.rundir.atomic import write_text
from visionsweep.text import first_line

FILE = "sweep.yaml"
_HEADER = "# What this sweep was started with. `--multirun` with the same study takes it up; do not edit.\n"
_MISSING = "(not set)"


@dataclass(frozen=True)
class Stored:
    """The contents of `sweep.yaml`."""

    id: str  # also noted in the study: which sweep it belongs to
    study_name: str  # in its storage, where hydra.sweeper.study_name gives none
    task_overrides: list[str]
    hydra_overrides: list[str]
    search: dict[
        str, Any
    ]  # space, directions, sampler, pruner, seeds: what makes a trial's number mean something
    config: dict[str, Any]  # the resolved config of a job, without the searched parameters
    seed: int  # of the sampler; drawn once where the config gives none
    git_commit: str | None
    valid_from: int = 0  # first trial with this config; more than 0 where hydra.sweeper.on_change=extend changed it
    is_checked: bool = False  # every choice was composed and built before trial 0

    def write(self, sweep_dir: Path) -> None:
        """Write `sweep.yaml` atomically."""
        write_text(
            sweep_dir / FILE,
            _HEADER + yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True),
        )


def read_stored(sweep_dir: Path) -> Stored | None:
    """Return what `sweep.yaml` holds, or None where there is no sweep. Raises `ConfigError` for another file."""
    try:
        text = (sweep_dir / FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Stored(**yaml.safe_load(text))
    except (yaml.YAMLError, TypeError) as error:
        raise ConfigError(
            f"{sweep_dir / FILE}: not readable as a stored sweep ({first_line(error)}); "
            "restore the file, or choose another study"
        ) from error


def new_id() -> str:
    """Return an id that no other sweep has."""
    return uuid.uuid4().hex


def override_key(override: str) -> str:
    """Return what an override sets: ``optim.lr`` of ``+optim.lr=1``, ``loss`` of ``~loss``."""
    return re.sub(r"^[+~]+", "", override.partition("=")[0])


def merge(stored: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the stored overrides with the given ones in place of those of the same keys, new keys last.

    The place counts: parameters are drawn in the order of their overrides. Merging what is merged already changes
    nothing.
    """
    keys = [override_key(override) for override in given]
    replaced = [override for override in stored if override_key(override) in keys]
    if replaced == list(given):
        return list(stored)
    if len(set(keys)) < len(keys) or len({override_key(override) for override in replaced}) < len(
        replaced
    ):
        # A key that is set twice has no one place.
        return [override for override in stored if override_key(override) not in keys] + list(given)
    waiting = dict(zip(keys, given, strict=True))
    merged = [waiting.pop(override_key(override), override) for override in stored]
    return merged + list(waiting.values())


def differences(
    stored: Stored, search: Mapping[str, Any], config: Mapping[str, Any], may_change: Iterable[str]
) -> list[str]:
    """Return one line for every key in which a command differs from the stored sweep (stored -> now)."""
    free = tuple(may_change)
    lines = []
    for title, before, now in (
        ("", stored.config, config),
        ("hydra.sweeper.", stored.search, search),
    ):
        for key, (old, new) in _difference(before, now).items():
            if title or not any(key == name or key.startswith(f"{name}.") for name in free):
                lines.append(f"{title}{key}: {_shown(old)} -> {_shown(new)}")
    return lines


def _difference(stored: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name in [*stored, *(n for n in now if n not in stored)]:
            below = f"{key}.{name}" if key else str(name)
            found |= _difference(stored.get(name, _MISSING), now.get(name, _MISSING), below)
        return found
    are_nan = stored != stored and now != now
    return {} if (stored == now or are_nan) and type(stored) is type(now) else {key: (stored, now)}


def _shown(value: Any) -> str:
    return value if value == _MISSING else without_password(repr(value))


def continue_command(sweep_dir: Path, hydra_overrides: Sequence[str], study_key: str | None) -> str:
    """Return the command that takes up a sweep."""
    kept = ("hydra/sweeper", "hydra.searchpath", "hydra.sweep.dir")
    words = [override for override in hydra_overrides if override_key(override) in kept]
    if not any(override_key(word) == "hydra.sweep.dir" for word in words):
        words.append(
            f"hydra.sweep.dir={sweep_dir}" if study_key is None else f"{study_key}={sweep_dir.name}"
        )
    return " ".join([program(), "--multirun", *map(shlex.quote, words)])


def without_password(text: str) -> str:
    """Return a text with the passwords of URLs masked."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)


def git_commit() -> str | None:
    """Return the commit of the current directory's repository, or None."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            env=os.environ,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
