"""Keeps passwords out of the files that are written of a config.

A password is typed, or comes from the environment: ``${oc.env:PASSWORD}``. Files get the
interpolation as typed, and what was typed itself as ``***``.
"""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.resolvers import oc

from visionsweep.text import mask_passwords, masked

_RESOLVER = "oc.env"


def without_secrets(config: Any, values: Any) -> Any:
    """Return `values`, the resolved contents of `config`, as files may hold them.

    Text that depends on an environment variable is the interpolation as typed: only the user knows
    whether it is a secret. Numbers from there stay numbers.
    """
    return masked(_typed(config, values))


def masked_config(config: DictConfig) -> DictConfig:
    """Return a copy of a job's config with its passwords masked; itself if it has none."""
    values = OmegaConf.to_container(config)
    if masked(values) == values:
        return config
    config = copy.deepcopy(config)
    _mask(config, values)
    return config


def hide_from_hydra(config: DictConfig, directory: Path) -> None:
    """Mask the passwords in what Hydra writes to `.hydra/`, and which nothing later needs.

    The task function may need those in its own part of the config. Then only the user may read the
    files, which Hydra opens and does not replace.
    """
    _mask(config.hydra, OmegaConf.to_container(config.hydra))
    folder = config.hydra.output_subdir
    if folder is not None and masked_config(config) is not config:
        (directory / folder).mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
            (directory / folder / name).touch(mode=0o600)


def mask_key(config: DictConfig, key: str) -> None:
    """Mask the password in one value of a config, which nothing later needs."""
    group, _, name = key.rpartition(".")
    typed: Any = OmegaConf.to_container(config[group])
    if masked(typed[name]) != typed[name]:
        OmegaConf.update(config, key, masked(typed[name]))


def _typed(node: Any, value: Any) -> Any:
    if isinstance(node, DictConfig) and isinstance(value, dict):
        raw: Any = OmegaConf.to_container(node)
        return {
            key: _typed_item(node, key, raw[key], item) if key in raw else item
            for key, item in value.items()
        }
    if isinstance(node, ListConfig) and isinstance(value, list) and len(node) == len(value):
        raw = OmegaConf.to_container(node)
        return [_typed_item(node, index, raw[index], item) for index, item in enumerate(value)]
    return value


def _typed_item(node: Any, key: Any, raw: Any, value: Any) -> Any:
    if isinstance(value, dict | list):
        return _typed(node[key], value)
    if not (isinstance(value, str) and isinstance(raw, str) and "${" in raw):
        return value
    with _environment_reads() as names:
        _ = node[key]
    return raw if names or mask_passwords(value) != value else value


@contextlib.contextmanager
def _environment_reads() -> Iterator[list[str]]:
    """Yield the list of the environment variables that interpolations read within the context."""
    names: list[str] = []

    def read(name: str, *default: Any) -> Any:
        names.append(name)
        return oc.env(name, *default)

    OmegaConf.register_resolver(_RESOLVER, read, replace=True)
    try:
        yield names
    finally:
        OmegaConf.register_resolver(_RESOLVER, oc.env, replace=True)


def _mask(node: Any, values: Any) -> None:
    """Mask the texts of a node, in place; their types, and interpolations, stay."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            if key != "env_set":  # what Hydra sets must be right
                _mask(node[key], value)
        elif isinstance(value, str) and mask_passwords(value) != value:
            with read_write(node), open_dict(node):
                node[key] = mask_passwords(value)
