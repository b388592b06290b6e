"""`sweep.yaml`: what a sweep was started with. A later command is merged onto it and compared."""

import re
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from visionsweep.config.difference import NOT_SET, difference
from visionsweep.errors import ConfigError
from visionsweep.rundir.atomic import write_text
from visionsweep.rundir.layout import SWEEP
from visionsweep.text import first_line, is_masked, mask_passwords, masked

_HEADER = (
    "# What this sweep was started with. --multirun with the same study resumes it. Do not edit.\n"
)


@dataclass(frozen=True)
class Stored:
    """The contents of `sweep.yaml`."""

    id: str  # also in the study, to tell which sweep it belongs to
    study_name: str  # in its storage, unless hydra.sweeper.study_name names another
    task_overrides: list[str]
    hydra_overrides: list[str]
    search: dict[str, Any]  # space, directions, sampler, pruner, seeds: must not change
    config: dict[str, Any]  # of a job, without the searched parameters, interpolations as written
    seed: int  # of the sampler; drawn once if the config gives none
    git_commit: str | None
    valid_from: int = 0  # first trial with this config; on_change=extend moves it
    is_checked: bool = False  # every choice was composed and built before trial 0
    data: list[dict[str, Any]] = field(default_factory=list)  # digests; see `data_digests`

    def write(self, sweep_dir: Path) -> None:
        """Write `sweep.yaml` atomically, without passwords."""
        text = yaml.safe_dump(masked(asdict(self)), sort_keys=False, allow_unicode=True)
        write_text(sweep_dir / SWEEP, _HEADER + text)


def read_stored(sweep_dir: Path) -> Stored | None:
    """Return the stored sweep, or None without one.

    Raises `ConfigError` if it is damaged, `OSError` if the directory cannot be used.
    """
    try:
        return Stored(**yaml.safe_load((sweep_dir / SWEEP).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(
            f"{sweep_dir / SWEEP}: cannot be read as a stored sweep ({first_line(error)}). "
            "Restore the file, or choose another study"
        ) from error


def used_seeds(stored: Stored) -> list[tuple[int, int]]:
    """Return the seeds that the runs of a sweep had: the first and the last of each range.

    Empty if they are not known.
    """
    key, count = stored.search["seed_key"], stored.search["seeds"]
    searched = stored.search["space"].get(key, {})
    if "high" in searched:
        return [(int(searched["low"]), int(searched["high"]))]
    firsts = searched.get("choices")
    if firsts is None:
        value: Any = stored.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        firsts = [value]
    return [(first, first + count - 1) for first in firsts if isinstance(first, int)]


def typed_overrides(config: DictConfig) -> tuple[list[str], list[str]]:
    """Return Hydra's and the app's overrides as typed: an interpolation may hold a password."""
    given: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    return given["hydra"], given["task"]


def new_id() -> str:
    """Return an id that no other sweep has."""
    return uuid.uuid4().hex


def override_key(override: str) -> str:
    """Return what an override sets: ``optim.lr`` of ``+optim.lr=1``, ``loss`` of ``~loss``."""
    return re.sub(r"^[+~]+", "", override.partition("=")[0])


def merge(stored: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the stored overrides, those of the same keys replaced by `given`, new keys last.

    Positions matter: parameters are drawn in the order of their overrides. Idempotent.
    """
    keys = [override_key(override) for override in given]
    replaced = [override for override in stored if override_key(override) in keys]
    if replaced == list(given):
        return list(stored)
    num_replaced_keys = len({override_key(override) for override in replaced})
    if len(set(keys)) < len(keys) or num_replaced_keys < len(replaced):
        # A key that is set twice has no single position.
        return [override for override in stored if override_key(override) not in keys] + list(given)
    waiting = dict(zip(keys, given, strict=True))
    merged = [waiting.pop(override_key(override), override) for override in stored]
    return merged + list(waiting.values())


def continued(
    stored: Stored, hydra: Sequence[str], task: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return Hydra's and the app's overrides of a stored sweep with those of a command.

    Raises `ConfigError` if the command leaves out one that was stored without its password.
    """
    merged = merge(stored.hydra_overrides, hydra), merge(stored.task_overrides, task)
    for override in (*merged[0], *merged[1]):
        if is_masked(override):
            key, _, value = override.partition("=")
            raise ConfigError(
                f"{key}: the password in {value} is not stored; give the whole address again with "
                f"{key}=..., or keep it in the environment: {key}='${{oc.env:NAME}}'"
            )
    return merged


def written_as(stored: Any, written: Any, resolved: Any) -> Any:
    """Return `written`, but values as `resolved` that are stored so, by an earlier version."""
    if all(isinstance(value, Mapping) for value in (stored, written, resolved)):
        return {
            key: written_as(stored.get(key), value, resolved.get(key))
            for key, value in written.items()
        }
    return resolved if stored == resolved else written


def differences(
    stored: Stored, search: Mapping[str, Any], config: Mapping[str, Any], may_change: Iterable[str]
) -> list[str]:
    """Return one line per key in which a command differs from the stored sweep (stored -> now)."""
    free = tuple(may_change)
    lines = []
    for title, before, now in (
        ("", stored.config, config),
        ("hydra.sweeper.", stored.search, search),
    ):
        for key, (old, new) in difference(before, now).items():
            if title or not any(key == name or key.startswith(f"{name}.") for name in free):
                lines.append(f"{title}{key}: {_shown(old)} -> {_shown(new)}")
    return lines


def _shown(value: Any) -> str:
    return value if value == NOT_SET else mask_passwords(repr(value))


def git_commit() -> str | None:
    """Return the commit of the current directory's repository, or None."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
