"""Keys that a config does not have: the line that names them, and what may be meant instead.

`+key=value` adds a key to any config. Nothing reads it where the keys are fixed, so there it is an
error, and no advice.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from visionsweep.config.build import takes_setting
from visionsweep.errors import ConfigError
from visionsweep.text import nearest

_OF_HYDRA = ("sweeper", "launcher")  # ours, if their schema is


def refuse_unknown_keys(config: DictConfig) -> None:
    """Raise `ConfigError` for a key where the schema fixes the keys, however it was added."""
    for prefix, node in [("", config), *_sections(config)]:
        schema = OmegaConf.get_type(node)
        if not dataclasses.is_dataclass(schema):
            continue
        known = {"hydra", *(field.name for field in dataclasses.fields(schema))}
        for name in map(str, node):
            if name not in known:
                raise ConfigError(unknown_key(f"{prefix}{name}", name, node))


def _sections(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, DictConfig]]:
    for name in map(str, config):
        node = config._get_node(name)
        if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
            continue
        if name == "hydra" and not prefix:
            for part in _OF_HYDRA:
                settings = node._get_node(part)
                if isinstance(settings, DictConfig) and not settings._is_none():
                    yield f"hydra.{part}.", settings
        elif not node._is_interpolation():
            yield f"{prefix}{name}.", node
            yield from _sections(node, f"{prefix}{name}.")


def unknown_key(full_key: str, key: str, parent: Any, added: str = "") -> str:
    """Return the line for a key that `parent` does not have.

    ``added``: the override that would add it; shown where something may read it.
    """
    where = full_key.removesuffix(key).rstrip(".")
    names = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    names = [name for name in names if name != key and not name.startswith("_")]
    near = []
    if isinstance(parent, DictConfig) and not where.startswith("hydra"):
        # epochs=2 instead of trainer.epochs=2
        paths = key_paths(parent._get_root())
        near = [path for path in paths if path.rpartition(".")[2] == key and path != full_key]
    found = nearest(key, names)
    if not near and found is not None:
        near = [f"{where}.{found}" if where else found]
    if near:
        return f"{full_key}: no such key; did you mean {' or '.join(near[:3])}?"
    known = ", ".join(name for name in names if name != "hydra") or "none"
    advice = f" (add a new key with {added})" if added and _may_be_added(key, parent, where) else ""
    return f"{full_key}: no such key; {where or 'the config'} has {known}{advice}"


def _may_be_added(key: str, parent: Any, where: str) -> bool:
    """Return whether a new key in `parent` may be read by anything."""
    if not isinstance(parent, DictConfig) or dataclasses.is_dataclass(OmegaConf.get_type(parent)):
        return False
    return "_target_" not in parent or takes_setting(str(parent["_target_"]), where, key)


def key_paths(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a config, but for `hydra`."""
    if not isinstance(config, Mapping | DictConfig):
        return
    for name in map(str, config):
        if name == "hydra" and not prefix:
            continue
        yield f"{prefix}{name}"
        if not (OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name)):
            yield from key_paths(config[name], f"{prefix}{name}.")
