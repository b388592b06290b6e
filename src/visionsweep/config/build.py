"""Config node -> object, and the guard in front of it.

A node is plain YAML with a `_target_`. It is checked against an allow-list and the signature of the
target: a misspelt key or a wrong type is an error of one line that names the key, not a TypeError
inside a library or, worse, no error. The target is then called directly: Hydra's `instantiate`
would also check the class of the result against the allow-list, which timm's factories fail.
"""

import collections.abc
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

from visionsweep.config.allowed import HOW_TO_ALLOW, describe_allowed, is_allowed, is_the_named
from visionsweep.errors import ConfigError
from visionsweep.text import first_line

OUR_TARGETS = "visionsweep."


def build(node: Any, key: str, **runtime: Any) -> Any:
    """Return the object that `node` describes.

    ``node``: a mapping of plain values with `_target_`; nested mappings with a `_target_` are built
    first. ``key``: its place in the config, for messages. ``runtime``: arguments that only the
    program knows (number of classes, parameters, ...); a target gets those in its signature.
    Raises `ConfigError` for a wrong target, key or value.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{key}: expected a mapping with `_target_`, got {node!r}")
    path = str(node["_target_"])
    target = _locate(path, key)
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    name: str = getattr(target, "__name__", path)
    parameters = _parameters(target)
    wanted = runtime
    if parameters is not None:
        _check_names(arguments, parameters, key, name, runtime)
        wanted = {k: v for k, v in runtime.items() if k in parameters or _takes_any(parameters)}
        hints = _hints(target)
        for argument, value in arguments.items():
            if argument in parameters:
                _check_type(
                    value, hints.get(argument), parameters[argument].default, f"{key}.{argument}"
                )
    built = {k: _build_nested(v, f"{key}.{k}", runtime) for k, v in arguments.items()}
    try:
        return target(**built, **wanted)
    except (TypeError, ValueError, AssertionError) as error:
        if path.startswith(OUR_TARGETS):  # a bug: ours raise `ConfigError` for wrong settings
            raise
        raise ConfigError(f"{key}: {name} refuses these settings ({first_line(error)})") from error


def takes_setting(path: str, key: str, name: str) -> bool:
    """Return whether the target `path` of the node `key` may take a setting `name`."""
    try:
        parameters = _parameters(_locate(path, key))
    except ConfigError:  # a target of another app
        return True
    return parameters is None or name in parameters or _takes_any(parameters)


def _build_nested(value: Any, key: str, runtime: dict[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, key, **runtime)
        return {k: _build_nested(v, f"{key}.{k}", runtime) for k, v in value.items()}
    if isinstance(value, list):
        return [_build_nested(v, f"{key}.{i}", runtime) for i, v in enumerate(value)]
    return value


def _locate(path: str, key: str) -> Callable[..., Any]:
    if not is_allowed(path, key.partition(".")[0]):
        raise _not_allowed(path, key)
    module, _, name = path.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_: cannot import '{path}' ({error})") from error
    if not is_the_named(target, path):
        raise _not_allowed(path, key)
    return target


def _not_allowed(path: str, key: str) -> ConfigError:
    return ConfigError(
        f"{key}._target_: {path!r} is not allowed; expected "
        f"{describe_allowed(key.partition('.')[0])}; {HOW_TO_ALLOW}"
    )


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return the target's parameters; None if Python does not know them (some C callables)."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return None


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _check_names(
    arguments: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
    key: str,
    name: str,
    runtime: Mapping[str, Any],
) -> None:
    known = [
        n
        for n, p in parameters.items()
        if p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and n not in runtime
    ]
    if not _takes_any(parameters):
        for argument in arguments:
            if argument not in known:
                raise ConfigError(
                    f"{key}.{argument}: {name} takes {', '.join(known) or 'no settings'}"
                )
    for parameter in known:
        if parameters[parameter].default is inspect.Parameter.empty and parameter not in arguments:
            raise ConfigError(f"{key}.{parameter}: required by {name}, but not set")


def require_number(value: Any, key: str) -> float:
    """Return `value` if it is a number; raise `ConfigError` naming `key` otherwise."""
    _check_type(value, float, None, key)
    if isinstance(value, Mapping):
        raise ConfigError(f"{key}: expected a number, got {value!r}")
    return float(value)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # only a type checker can resolve them
        return {}


def _check_type(value: Any, hint: Any, default: Any, key: str) -> None:
    """Raise `ConfigError` if a value has not the type of the annotation, or else the default."""
    if isinstance(value, Mapping) and "_target_" in value:
        return  # checked when it is built
    if hint is None and isinstance(default, bool | int | float | str):
        # A default of 0 stands for a number, not for an integer.
        hint = type(default) if isinstance(default, bool | str) else float
    if hint is None or _fits(value, hint):
        return
    is_number = isinstance(value, bool | int | float)
    advice = f"; quote text: {key}=\"'...'\"" if is_number and _fits("", hint) else ""
    raise ConfigError(f"{key}: expected {_describe(hint)}, got {value!r}{advice}")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if origin in (list, tuple, collections.abc.Sequence) or hint is tuple:
        items = [a for a in typing.get_args(hint) if a is not Ellipsis]
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        if origin is tuple and len(items) > 1 and len(items) != len(value):
            return False
        return all(any(_fits(v, item) for item in items) for v in value) if items else True
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping)
    if isinstance(hint, type) and not isinstance(
        value, Mapping | bool | int | float | str | list | type(None)
    ):
        return True  # an object that was built already
    # A plain value does not fit where a library expects an object such as a tensor.
    return not isinstance(hint, type) or _is_instance(value, hint)


def _is_instance(value: Any, hint: type) -> bool:
    try:
        return isinstance(value, hint)
    except TypeError:  # `Any`, a protocol, a typed dictionary: they do not say what fits
        return True


_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        plain = [_describe(a) for a in typing.get_args(hint)]
        return " or ".join(dict.fromkeys(plain))
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in typing.get_args(hint))
    if origin in (list, tuple, collections.abc.Sequence):
        inner = [_describe(a) for a in typing.get_args(hint) if a is not Ellipsis]
        return f"a list of ({' and '.join(dict.fromkeys(inner))})" if inner else "a list"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))
