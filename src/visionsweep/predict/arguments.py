"""The `key=value` arguments of predict.py: a schema dataclass and its parser. No Hydra: nothing is composed."""

import csv
import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from visionsweep.data.paths import absolute
from visionsweep.errors import ConfigError

Labels = Literal["names", "indices"]
TTA = Literal["none", "flip"]


@dataclass(frozen=True)
class Key:
    """How the command line calls an argument, and what `--help` says about it."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Arguments:
    """What predict.py is asked to do; those without a default are required. Paths that the user gave are absolute."""

    runs: Annotated[
        tuple[Path, ...],
        Key("run", "directory of a run, or several: [outputs/a,outputs/b] is their mean"),
    ]
    images: Annotated[
        Path, Key("data.predict", "folder of images, or CSV file with a column of their paths")
    ]
    image_column: Annotated[
        str | None, Key("data.image", "CSV column of the paths; default: path, image, file, ...")
    ] = None
    root: Annotated[
        Path | None, Key("data.root", "folder that they start from; default: the CSV file's")
    ] = None
    out: Annotated[Path, Key("out", "CSV file to write")] = Path("submission.csv")
    sample: Annotated[
        Path | None, Key("sample", "sample submission: its rows, order and header are kept")
    ] = None
    id_column: Annotated[
        str | None, Key("id_column", "default: the sample's first column, or id")
    ] = None
    label_column: Annotated[
        str | None, Key("label_column", "default: the sample's second column, or label")
    ] = None
    labels: Annotated[Labels, Key("labels", "what the label column holds: names or indices")] = (
        "names"
    )
    probabilities: Annotated[
        bool, Key("probabilities", "true adds a column prob_CLASS for each class")
    ] = False
    tta: Annotated[
        TTA, Key("tta", "flip: the mean over each image and its mirror image; or none")
    ] = "none"
    batch_size: Annotated[int, Key("batch_size", "images at a time")] = 128
    device: Annotated[str, Key("device", "auto, cpu, cuda, cuda:N or mps")] = "auto"


@dataclass(frozen=True)
class _Argument:
    key: Key
    field: str
    hint: Any
    default: Any

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING


def _schema() -> dict[str, _Argument]:
    hints = typing.get_type_hints(Arguments, include_extras=True)
    arguments = {}
    for field in dataclasses.fields(Arguments):
        hint, key = typing.get_args(hints[field.name])
        arguments[key.name] = _Argument(key, field.name, hint, field.default)
    return arguments


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Return the arguments in `argv`. Raises `ConfigError` for an unknown, repeated, missing or wrong one."""
    schema = _schema()
    values: dict[str, Any] = {}
    for text in argv:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text}: expected key=value, with a key of {', '.join(schema)}")
        if name not in schema:
            near = difflib.get_close_matches(name, schema, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"{name}: unknown; {hint}(keys: {', '.join(schema)})")
        argument = schema[name]
        if argument.field in values:
            raise ConfigError(f"{name}: given twice; give it once")
        values[argument.field] = _convert(name, value, argument.hint)
    for name, argument in schema.items():
        if argument.is_required and argument.field not in values:
            raise ConfigError(f"{name}: not set; expected {name}=... ({argument.key.meaning})")
    return Arguments(**values)


def describe_arguments() -> str:
    """Return what `--help` shows: one line a key."""
    lines = ["python predict.py run=outputs/NAME data.predict=FOLDER [key=value ...]", ""]
    for name, argument in _schema().items():
        note = ""
        if argument.is_required:
            note = " (required)"
        elif argument.default is not None:
            note = f" (default: {str(argument.default).lower()})"
        lines.append(f"  {name:<15}{argument.key.meaning}{note}")
    return "\n".join(lines)


def _convert(name: str, text: str, hint: Any) -> Any:
    """Return `text` as a value of the type `hint`."""
    if not text:
        raise ConfigError(f"{name}: got nothing after '='; leave the key out for its default")
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if text == "null" else _convert(name, text, options[0])
    if origin is Literal:
        if text not in options:
            raise ConfigError(f"{name}: expected {' or '.join(options)}, got '{text}'")
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name}: expected true or false, got '{text}'")
        return text.lower() == "true"
    if hint is int:
        if not re.fullmatch("[1-9][0-9]*", text):
            raise ConfigError(f"{name}: expected a whole number from 1 up, got '{text}'")
        return int(text)
    if hint is Path:
        return absolute(name, text)
    if hint is str:
        return text
    assert hint == tuple[Path, ...], f"no conversion to {hint}"
    return tuple(absolute(name, item) for item in _items(name, text))


def _items(name: str, text: str) -> list[str]:
    """Return the items of `[a,b]`, or `text` itself. Double quotes keep the commas of an item: `["a,b",c]`."""
    if not (text.startswith("[") and text.endswith("]")) or Path(text).exists():
        return [text]
    items = [item.strip() for item in next(csv.reader([text[1:-1]], skipinitialspace=True))]
    if not items or not all(items):
        raise ConfigError(
            f"{name}: expected a list without gaps, e.g. [outputs/a,outputs/b], got '{text}'"
        )
    return items
